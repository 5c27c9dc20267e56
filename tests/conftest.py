"""Fixtures for all tests."""

import signal
from collections.abc import Iterator

import pytest

pytest_plugins = ["resilience.testing.plugin"]


def pytest_configure() -> None:
    """End on SIGTERM as on Ctrl-C, so that fixtures stop the processes that they started."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def shared_broker(request: pytest.FixtureRequest) -> Iterator[None]:
    """The server behind `running_broker`, if that is to be RabbitMQ."""
    from tests import brokers  # noqa: PLC0415 - what it imports is a plugin, and comes first

    if brokers.ON_RABBITMQ:
        brokers.SHARED.append(request.getfixturevalue("rabbitmq"))
    yield
    brokers.SHARED.clear()
