"""What the examples depend on."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack

import pytest

from tests.acceptance.upstream import Upstream, running


@pytest.fixture(scope="module")
def upstream_services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, Upstream]]:
    """Run the services that the examples call."""
    directory = tmp_path_factory.mktemp("upstreams")
    with ExitStack() as stack:
        yield {
            name: stack.enter_context(running(name, directory))
            for name in ("recommendations", "mail")
        }


@pytest.fixture
def services(upstream_services: Mapping[str, Upstream]) -> Iterator[Mapping[str, Upstream]]:
    """The services, without a fault before and after the test."""
    yield upstream_services
    for service in upstream_services.values():
        service.lift_fault()
