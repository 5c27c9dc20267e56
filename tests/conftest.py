"""Fixtures for all tests."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import redis
from hypothesis import HealthCheck, settings

from tests import preloaded

if TYPE_CHECKING:
    from tests.brokers import Broker

pytest_plugins = ["resilience.testing.plugin"]

# A busy machine is no failure. It is based on the profile that is loaded: where CI is set, that is
# Hypothesis's own for it.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")

NO_AUTHORITY = Path(__file__).parent / "no_authority.pem"
"""The only authority that tests trust. Nobody has its key: no test talks to a stranger over TLS.

PyMySQL and httpx load all authorities of the machine for each connection or client, whether they
use TLS or not: 0.03 s of CPU time. This one takes 0.001 s.
"""


def pytest_configure() -> None:
    """Trust nobody over TLS; end on SIGTERM as on Ctrl-C, so that fixtures stop their processes."""
    os.environ["SSL_CERT_FILE"] = str(NO_AUTHORITY)  # noqa: TID251 - of whatever tests start
    preloaded.install()
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def pytest_collection_finish() -> None:
    """Spare `nothing_behind` what was imported: a million objects, which would take it 0.3 s."""
    gc.collect()
    gc.freeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order the tests, and leave out those that need a Redis broker where tests have another.

    What needs RabbitMQ comes first. Runners that share the tests begin at different places of the
    list, so that only one of them starts a server, which takes 5 s of CPU time.
    """
    from tests import brokers  # noqa: PLC0415 - what it imports is a plugin, and comes first

    items.sort(key=lambda item: not _needs_rabbitmq(item))
    if not brokers.ON_RABBITMQ:
        return
    for item in items:
        for mark in item.iter_markers("redis_broker"):
            item.add_marker(pytest.mark.skip(reason=f"of a Redis broker: {mark.args[0]}"))


def _needs_rabbitmq(item: pytest.Item) -> bool:
    """Tell whether *item* uses the server, directly or as one of its parameters."""
    parameters = item.callspec.params.values() if hasattr(item, "callspec") else ()
    fixtures = item.fixturenames if isinstance(item, pytest.Function) else ()
    return "rabbitmq" in fixtures or "rabbitmq" in parameters


@pytest.fixture(scope="module", autouse=True)
def nothing_behind() -> Iterator[None]:
    """Disconnect and collect what a module's tests have left.

    Nothing closes the connections of a Celery app's result backend. They are part of a cycle, in
    which the collector may find the socket before the connection that would close it. It then warns
    of the socket, in whichever test runs by then.

    Celery unsubscribes in the destructor of a result. When the server is gone, that logs a
    traceback, for which Python 3.11 parses source. A collector that runs while source is parsed
    already then ends the run: "SystemError: AST constructor recursion depth mismatch".
    """
    yield
    # By their exact type: a proxy of Celery would say that it is what it stands for.
    for pool in [one for one in gc.get_objects() if type(one) is redis.ConnectionPool]:
        pool.disconnect()
    gc.collect()


@pytest.fixture(scope="session", autouse=True)
def shared_broker(request: pytest.FixtureRequest) -> Iterator[None]:
    """The server behind `running_broker`, if that is to be RabbitMQ."""
    from tests import brokers  # noqa: PLC0415 - what it imports is a plugin, and comes first

    if brokers.ON_RABBITMQ:
        brokers.SHARED.append(request.getfixturevalue("rabbitmq"))
    yield
    brokers.SHARED.clear()


@pytest.fixture(scope="session", autouse=True)
def own_marks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A directory of the tests' own for the marks of workers: the host's probes find none there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RESILIENCE_RUNTIME_DIRECTORY", str(tmp_path_factory.mktemp("marks")))
        yield


@pytest.fixture(scope="module", autouse=True)
def own_ledger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[pytest.MonkeyPatch]:
    """A ledger of the module's own, also for its workers: orders and jobs of others come back."""
    with pytest.MonkeyPatch.context() as patch:
        path = tmp_path_factory.mktemp("ledger") / "ledger.sqlite3"
        patch.setenv("RESILIENCE_LEDGER_URL", f"sqlite:///{path}")
        yield patch


@pytest.fixture(scope="module")
def no_ledger_named(own_ledger: pytest.MonkeyPatch) -> None:
    """No setting says where the ledger is, as in an app that has not thought of it."""
    own_ledger.delenv("RESILIENCE_LEDGER_URL")


@pytest.fixture(scope="session")
def any_broker(request: pytest.FixtureRequest) -> Broker:
    """The broker behind `broker`, at one address as long as tests run."""
    from tests import brokers  # noqa: PLC0415 - as above

    if brokers.ON_RABBITMQ:
        return brokers.Rabbit(brokers.SHARED[0])
    return brokers.Valkey(request.getfixturevalue("valkey"))


@pytest.fixture
def broker(any_broker: Broker) -> Broker:
    """A broker with no messages; on Valkey it is the server of `valkey`, emptied."""
    if not any_broker.running:
        any_broker.start()
    any_broker.empty()
    return any_broker
