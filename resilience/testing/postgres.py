"""A real PostgreSQL server for tests.

Needs the server's programs, as Debian's package `postgresql` installs them, and psycopg.
"""

import shutil
import signal
import subprocess
from contextlib import AbstractContextManager
from pathlib import Path
from uuid import uuid4

import psutil

from resilience.testing.homes import run_as, running
from resilience.testing.ports import LOCALHOST, free_port
from resilience.testing.process import KILL_SECONDS, STOP_SECONDS, ServerProcess, is_alive
from resilience.testing.waiting import wait_until

READY = "database system is ready to accept connections"
USER = "postgres"


def find_programs() -> Path | None:
    """Return the directory of the newest server's programs; None: there is no server."""
    on_path = shutil.which("postgres")
    if on_path:
        return Path(on_path).resolve().parent
    found = Path("/usr/lib/postgresql").glob("*/bin/postgres")
    return max((path.parent for path in found), key=_version, default=None)


def _version(programs: Path) -> int:
    name = programs.parent.name
    return int(name) if name.isdecimal() else 0


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
                user `postgres` does, who must be able to reach it.

        Raises:
            RuntimeError: There is no server on this machine.
        """
        programs = find_programs()
        if programs is None:
            msg = "no PostgreSQL: apt-get install postgresql"
            raise RuntimeError(msg)
        self.port = free_port()
        self.url = f"postgresql://{USER}@{LOCALHOST}:{self.port}/postgres"
        data = home / "data"
        as_user = run_as(USER, home)
        options = ["--auth=trust", f"--username={USER}", "--encoding=UTF8", "--no-sync"]
        subprocess.run(  # noqa: S603 - found above
            [*as_user, str(programs / "initdb"), *options, f"--pgdata={data}"],
            check=True,
            capture_output=True,
            cwd=home,
        )
        command = [*as_user, str(programs / "postgres"), "-D", str(data), "-p", str(self.port)]
        listen = ["-c", f"listen_addresses={LOCALHOST}", "-c", "unix_socket_directories="]
        super().__init__(
            [*command, *listen], ready=READY, log_path=home / "postgres.log", directory=home
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
    return running(PostgresProcess, "PostgreSQL", present=find_programs() is not None)
