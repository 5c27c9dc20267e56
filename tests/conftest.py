"""Fixtures for all tests."""

from __future__ import annotations

import gc
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import redis
from hypothesis import HealthCheck, settings

from tests import fresh, in_memory, preloaded

if TYPE_CHECKING:
    from collections.abc import Generator

    from resilience.testing.rabbitmq import RabbitProcess
    from tests.brokers import Broker

pytest_plugins = ["resilience.testing.plugin", "tests.watchdog"]

# A busy machine must not fail a test. All else is as in the profile that Hypothesis has loaded by
# itself: "ci" where CI is set, "default" elsewhere.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")

NO_AUTHORITY = Path(__file__).parent / "no_authority.pem"
"""The only authority that tests trust. Nobody has its key: no test can reach the world over TLS.

PyMySQL and httpx load the machine's authorities for each connection or client, whether that uses
TLS or not. All of them take 0.03 s of CPU time, this one takes 0.001 s.
"""


SOCKETS: list[socket.socket] = []
"""Those of Redis connections that were made since the last module ended."""


def pytest_configure(config: pytest.Config) -> None:
    """Trust nobody over TLS; end on SIGTERM as on Ctrl-C, so that fixtures stop their processes.

    The collector of garbage rests until the tests are collected: what it would look through again
    and again while they are imported is there to stay, and costs each runner 2 s.

    A shell that starts a command in the background has it ignore Ctrl-C, and so would every program
    that the tests start and interrupt.
    """
    os.environ["SSL_CERT_FILE"] = str(NO_AUTHORITY)  # noqa: TID251 - inherited by processes
    gc.disable()
    in_memory.use(config)
    preloaded.install()
    _keep_sockets()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)


def _keep_sockets() -> None:
    """Keep the socket of each Redis connection, for `close_leftovers`."""

    def keep(connect: Callable[[Any], socket.socket]) -> Callable[[Any], socket.socket]:
        def connect_and_keep(connection: redis.Connection) -> socket.socket:
            made = connect(connection)
            SOCKETS.append(made)
            return made

        return connect_and_keep

    for kind in (redis.Connection, redis.UnixDomainSocketConnection):
        kind._connect = keep(kind._connect)  # noqa: SLF001 - nothing public sees the socket


def pytest_collection_finish() -> None:
    """Freeze the million imported objects, on which `close_leftovers` would spend 0.3 s a time."""
    gc.enable()
    gc.collect()
    gc.freeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Move the tests that need RabbitMQ to the front; on RabbitMQ, skip those that need Redis.

    Runners that share the tests begin at different places of the list. So only one of them starts
    a RabbitMQ, which takes 3 s of CPU time.

    Raises:
        UsageError: A test is marked `chaos` and says nothing else, as tests of minutes once were.
    """
    for item in items:
        chaos = item.get_closest_marker("chaos")
        if chaos is not None and not chaos.kwargs:
            msg = f"{item.nodeid}: write mark.long for what takes minutes; chaos lets calls fail"
            raise pytest.UsageError(msg)
    from tests import brokers  # noqa: PLC0415 - imports a plugin, which pytest must load first

    items.sort(key=lambda item: not _needs_rabbitmq(item))
    if not brokers.ON_RABBITMQ:
        return
    for item in items:
        for mark in item.iter_markers("redis_broker"):
            item.add_marker(pytest.mark.skip(reason=f"needs a Redis broker: {mark.args[0]}"))


def _needs_rabbitmq(item: pytest.Item) -> bool:
    """Tell whether *item* uses the fixture `rabbitmq`, or names it in a parameter."""
    parameters = item.callspec.params.values() if hasattr(item, "callspec") else ()
    fixtures = item.fixturenames if isinstance(item, pytest.Function) else ()
    return "rabbitmq" in fixtures or "rabbitmq" in parameters


RABBITMQ: pytest.StashKey[RabbitProcess] = pytest.StashKey()


@pytest.fixture(scope="session")
def rabbitmq(rabbitmq: RabbitProcess, pytestconfig: pytest.Config) -> RabbitProcess:
    """The server of the plugin, which rests while no test needs it."""
    pytestconfig.stash[RABBITMQ] = rabbitmq
    return rabbitmq


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Start RabbitMQ again if it was stopped as no test seemed to need it."""
    server = item.config.stash.get(RABBITMQ, None)
    if server is not None and not server.running and _needs_rabbitmq(item):
        server.start()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(
    item: pytest.Item, nextitem: pytest.Item | None
) -> Generator[None, object, object]:
    """Clear RabbitMQ after each module that uses it, and stop it when the next test does not.

    With the virtual hosts of ten modules, idleness takes it as long as the tests do, and a restart
    six seconds of CPU time.
    """
    done = yield
    from tests import brokers  # noqa: PLC0415 - as above

    server = item.config.stash.get(RABBITMQ, None)
    if server is None or not server.running or brokers.ON_RABBITMQ:
        return done
    if nextitem is None or nextitem.path == item.path:  # or what the module shares may use it yet
        return done
    if not _needs_rabbitmq(nextitem):
        server.stop()
    else:
        server.evaluate(
            '[rabbit_vhost:delete(Name, <<"guest">>) '
            '|| Name <- rabbit_vhost:list_names(), Name =/= <<"/">>], ok'
        )
    return done


@pytest.fixture(scope="module", autouse=True)
def close_leftovers() -> Iterator[None]:
    """After each module, close the Redis connections that its tests left, and collect garbage.

    A runner may run a module twice, with other tests in between: each time with servers of its own.

    Nothing closes the connections of a Celery app's result backend. They are part of a cycle, and
    the collector may finalize the socket before the connection that would close it. The warning
    about the unclosed socket would fail whichever test runs at that moment. So each socket is kept
    until here, and the connection closes it.

    A Celery result unsubscribes in its destructor. If the server is gone, that logs a traceback,
    for which Python 3.11 parses source. If the collector was itself started while source was being
    parsed, the run ends: "SystemError: AST constructor recursion depth mismatch".
    """
    yield
    # Not isinstance: a proxy of Celery answers that for the object behind it.
    for pool in [one for one in gc.get_objects() if type(one) is redis.ConnectionPool]:
        pool.disconnect()
    fresh.forget_servers()
    gc.collect()
    gc.freeze()  # what is left stays: else each module would look through it again
    while SOCKETS:
        left = SOCKETS.pop()
        if sys.getrefcount(left) == 2:  # no connection has it, as when a cut came before it did
            left.close()


@pytest.fixture(scope="session", autouse=True)
def shared_broker(request: pytest.FixtureRequest) -> Iterator[None]:
    """Start the one RabbitMQ of the run, if tests run on RabbitMQ; see `brokers.SHARED`."""
    from tests import brokers  # noqa: PLC0415 - as above

    if brokers.ON_RABBITMQ:
        brokers.SHARED.append(request.getfixturevalue("rabbitmq"))
    yield
    brokers.SHARED.clear()


@pytest.fixture(scope="session", autouse=True)
def copied_databases(
    pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """Make the data directories of databases once for all runners of this run."""
    from tests import templates  # noqa: PLC0415 - as above

    own = tmp_path_factory.getbasetemp()
    shared = own.parent if hasattr(pytestconfig, "workerinput") else own
    with templates.copied_within(shared / "templates"):
        yield


@pytest.fixture(scope="session", autouse=True)
def own_marks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the health marks of workers where no probe of the host looks for them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RESILIENCE_RUNTIME_DIRECTORY", str(tmp_path_factory.mktemp("marks")))
        yield


@pytest.fixture(scope="module", autouse=True)
def own_ledger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[pytest.MonkeyPatch]:
    """Give each module and its workers a ledger: in a shared one, old jobs would come back."""
    with pytest.MonkeyPatch.context() as patch:
        path = tmp_path_factory.mktemp("ledger") / "ledger.sqlite3"
        patch.setenv("RESILIENCE_LEDGER_URL", f"sqlite:///{path}")
        yield patch


@pytest.fixture(scope="module")
def no_ledger_named(own_ledger: pytest.MonkeyPatch) -> None:
    """Leave the ledger's address unset, as in an app whose author has not set it."""
    own_ledger.delenv("RESILIENCE_LEDGER_URL")


@pytest.fixture(scope="session")
def any_broker(request: pytest.FixtureRequest) -> Broker:
    """The broker behind `broker`; its address stays the same for the whole run."""
    from tests import brokers  # noqa: PLC0415 - as above

    if brokers.ON_RABBITMQ:
        return brokers.Rabbit(brokers.SHARED[0])
    return brokers.Valkey(request.getfixturevalue("valkey"))


@pytest.fixture
def broker(any_broker: Broker) -> Broker:
    """A running broker without messages; if it is Valkey, the server of `valkey`, emptied."""
    if not any_broker.running:
        any_broker.start()
    any_broker.empty()
    return any_broker
