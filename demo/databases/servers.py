"""A primary that can be killed, and a replica that streams from it over a link that can stall."""

import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, NamedTuple

import psycopg

from jobs.models import open_engine
from jobs.seed import seed
from resilience.ledger import Ledger
from resilience.testing.ports import LOCALHOST
from resilience.testing.postgres import USER, PostgresProcess, backends_of, kill_backends
from resilience.testing.proxy import TcpProxy
from resilience.testing.waiting import wait_until

START_SECONDS: Final = 60.0
STOP_SECONDS: Final = 3.0
CONNECT_SECONDS: Final = 2
# Nothing of a demo is to survive a power cut, and on a slow disk commits would be what is measured.
OPTIONS: Final = ("--fsync=off",)


def database_url(port: int) -> str:
    """Return the address of the one database of the server on *port*, for SQLAlchemy."""
    return f"postgresql+psycopg://{USER}@{LOCALHOST}:{port}/postgres"


class DemoServer:
    """A PostgreSQL server that this process starts, kills and starts again.

    It is in this process's group, so that whoever kills that group leaves no server behind.
    """

    def __init__(self, cluster: PostgresProcess) -> None:
        """Prepare to run *cluster*, which nobody else starts."""
        self._cluster = cluster
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the server unless it runs, and wait until it accepts connections.

        Raises:
            RuntimeError: It ended by itself; its output says why.
            AssertionError: It did not accept any for a minute.
        """
        if self._process is not None:
            return
        command = [*self._cluster.command, *OPTIONS]
        process = self._process = subprocess.Popen(  # noqa: S603 - a program of the wheel
            command, stdin=subprocess.DEVNULL, cwd=self._cluster.directory
        )
        wait_until(
            lambda: process.poll() is not None or self._accepts(),
            START_SECONDS,
            f"the server on port {self._cluster.port} accepts connections",
        )
        if process.returncode is not None:
            msg = f"the server on port {self._cluster.port} ended with code {process.returncode}"
            raise RuntimeError(msg)

    def stop(self) -> None:
        """Stop the server without waiting for its clients; harmless if it does not run."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGINT)  # at SIGTERM it waits until all have left
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
        self._process = None

    def kill(self) -> None:
        """Kill the server and its backends, as a crash does; harmless if it does not run."""
        if self._process is None:
            return
        backends = backends_of(self._process.pid) if self._process.poll() is None else []
        self._process.kill()
        self._process.wait()
        kill_backends(backends)
        self._process = None

    def _accepts(self) -> bool:
        try:
            psycopg.connect(self._cluster.url, connect_timeout=CONNECT_SECONDS).close()
        except psycopg.OperationalError:
            return False
        return True


class Pair(NamedTuple):
    """The servers and the link that the replica streams through."""

    primary: DemoServer
    link: TcpProxy
    replica: DemoServer


@contextmanager
def running_databases(*, primary_port: int, replica_port: int) -> Iterator[Pair]:
    """Run a seeded primary and its replica; their files are gone when the block ends.

    The shop's tables and its ledger are in the one database of the primary.
    """
    with ExitStack() as stack:
        # One each: root gives a server's directory to the user who runs the server.
        homes = [
            Path(stack.enter_context(TemporaryDirectory(prefix=f"demo-{name}-")))
            for name in ("primary", "replica")
        ]
        cluster = PostgresProcess(homes[0], port=primary_port)
        primary = DemoServer(cluster)
        stack.callback(primary.stop)
        primary.start()
        _fill(database_url(primary_port))
        link = TcpProxy(primary_port)
        stack.callback(link.close)
        replica = DemoServer(cluster.replica(homes[1], through=link.port, port=replica_port))
        stack.callback(replica.stop)
        replica.start()
        # Before the servers stop: a primary waits until its replica has all of it.
        stack.callback(link.resume)
        yield Pair(primary, link, replica)


def _fill(url: str) -> None:
    engine = open_engine(url)
    try:
        seed(engine)
    finally:
        engine.dispose()
    ledger = Ledger(url)
    ledger.upgrade()
    ledger.close()
