"""Fixtures: processes that share recent writes, on a server that tests may kill."""

from collections.abc import Iterator

import pytest

from resilience.testing.plugin import running_valkey
from resilience.testing.valkey import ValkeyProcess
from tests.conformance.recent_writes.reader_fleet import Fleet
from tests.unit.sources import WAYS, Make


@pytest.fixture(params=WAYS.values(), ids=WAYS)
def make(request: pytest.FixtureRequest) -> Make:
    """How to make a reader, synchronous and asynchronous: the same holds for both."""
    way: Make = request.param
    return way


@pytest.fixture(scope="module")
def module_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyProcess]:
    """A server that may be killed, and whose commands nobody else adds to."""
    with running_valkey(tmp_path_factory) as server:
        yield server


@pytest.fixture
def server(module_server: ValkeyProcess) -> ValkeyProcess:
    """That server, up and empty."""
    if not module_server.running:
        module_server.start()
    module_server.flush()
    return module_server


@pytest.fixture
def fleet(make: Make, server: ValkeyProcess) -> Fleet:
    """A fleet without processes so far."""
    return Fleet(make, server.url)
