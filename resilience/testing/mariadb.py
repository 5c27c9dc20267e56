"""A real MariaDB server for tests.

Needs the server's programs, as Debian's package `mariadb-server` installs them, and PyMySQL.
"""

import os
import shutil
import subprocess
from contextlib import AbstractContextManager
from pathlib import Path

from resilience.testing.homes import run_as, running
from resilience.testing.ports import LOCALHOST, free_port
from resilience.testing.process import ServerProcess

READY = "ready for connections"
USER = "mysql"
DATABASE = "test"
PLACES = os.pathsep.join(["/usr/sbin", "/usr/bin", "/usr/local/sbin", "/usr/local/bin"])
"""Where to look besides the PATH, which on Debian only root's has `sbin` in."""


def find_program(name: str) -> str | None:
    """Return the path of one of the server's programs; None: it is not installed."""
    return shutil.which(name) or shutil.which(name, path=PLACES)


class MariaDbProcess(ServerProcess):
    """A server on a free port, which keeps its data when it is stopped or killed.

    Attributes:
        port: TCP port on 127.0.0.1; the same over all starts.
        url: Address of the one database that tests share.
    """

    def __init__(self, home: Path) -> None:
        """Make an empty server; `start` starts it.

        Args:
            home: Empty directory for its data and its log. Root cannot run the server, so that the
                user `mysql` does, who must be able to reach it.

        Raises:
            RuntimeError: There is no server on this machine.
        """
        server, install = find_program("mariadbd"), find_program("mariadb-install-db")
        if server is None or install is None:
            msg = "no MariaDB: apt-get install mariadb-server"
            raise RuntimeError(msg)
        self.port = free_port()
        self.url = f"mariadb://root@{LOCALHOST}:{self.port}/{DATABASE}"
        as_user, data = run_as(USER, home), f"--datadir={home / 'data'}"
        # Root's password is empty, and no file of the machine has a say.
        options = ["--auth-root-authentication-method=normal", "--skip-name-resolve"]
        subprocess.run(  # noqa: S603 - found above
            [*as_user, install, "--no-defaults", data, *options],
            check=True,
            capture_output=True,
            cwd=home,
        )
        listen = [f"--bind-address={LOCALHOST}", f"--port={self.port}"]
        files = [data, f"--socket={home / 'socket'}", f"--pid-file={home / 'pid'}"]
        super().__init__(
            [*as_user, server, "--no-defaults", "--skip-name-resolve", *listen, *files],
            ready=READY,
            log_path=home / "mariadb.log",
            directory=home,
        )

    def emptied(self) -> str:
        """Empty the database that tests share, and return its address."""
        # Here, so that the module can be imported without the driver.
        import pymysql  # noqa: PLC0415

        with (
            pymysql.connect(host=LOCALHOST, port=self.port, user="root") as connection,
            connection.cursor() as cursor,
        ):
            cursor.execute(f"DROP DATABASE IF EXISTS {DATABASE}")
            cursor.execute(f"CREATE DATABASE {DATABASE}")
        return self.url


def running_mariadb() -> AbstractContextManager[MariaDbProcess]:
    """Run a server with no data; skip or fail the test if there is none to run."""
    return running(MariaDbProcess, "MariaDB", present=find_program("mariadbd") is not None)
