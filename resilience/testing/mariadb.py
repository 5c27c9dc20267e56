"""A real MariaDB server for tests, and replicas of it.

Needs the server's programs, as Debian's package `mariadb-server` installs them, and PyMySQL.
"""

import os
import shutil
import subprocess
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from resilience.testing.homes import run_as, running
from resilience.testing.ports import LOCALHOST, free_port
from resilience.testing.process import ServerProcess

READY = "ready for connections"
USER = "mysql"
DATABASE = "test"
READER = "reader"
"""The user who reads from a replica, where root could write."""
HEARTBEAT_SECONDS = 0.2
MACHINE = ["--no-defaults", "--skip-name-resolve"]
"""Ignores the machine's option files, and its host names."""
SYSTEM_PATH = os.pathsep.join(["/usr/sbin", "/usr/bin", "/usr/local/sbin", "/usr/local/bin"])
"""Searched after the PATH, which on Debian has `sbin` for root only."""


def find_program(name: str) -> str | None:
    """Return the path of one of the server's programs; None: it is not installed."""
    return shutil.which(name) or shutil.which(name, path=SYSTEM_PATH)


class MariaDbProcess(ServerProcess):
    """A server on a free port, which keeps its data when it is stopped or killed.

    Attributes:
        port: TCP port on 127.0.0.1; the same over all starts.
        url: Address of the one database that tests share.
    """

    def __init__(self, home: Path) -> None:
        """Make an empty server; `start` starts it.

        Args:
            home: Empty directory for its data and its log. For root, who cannot run the server, the
                user `mysql` does, who must be able to enter the directory.

        Raises:
            RuntimeError: The server is not installed, or cannot make its files.
        """
        server, install = find_program("mariadbd"), find_program("mariadb-install-db")
        if server is None or install is None:
            msg = "no MariaDB: apt-get install mariadb-server"
            raise RuntimeError(msg)
        self.port = free_port()
        self.url = f"mariadb://root@{LOCALHOST}:{self.port}/{DATABASE}"
        self._as_user = run_as(USER, home)
        self._data = home / "data"
        # A starting server deletes all temporary tables in its tmpdir, those of others included.
        self._places = [f"--datadir={self._data}", f"--tmpdir={home}"]
        self._install, self._home = install, home
        self._fill()
        listen = [f"--bind-address={LOCALHOST}", f"--port={self.port}"]
        files = [*self._places, f"--socket={home / 'socket'}", f"--pid-file={home / 'pid'}"]
        super().__init__(
            [*self._as_user, server, *MACHINE, *listen, *files, *self._options()],
            ready=READY,
            log_path=home / "mariadb.log",
            directory=home,
        )

    def _fill(self) -> None:
        """Write the data directory that the first start finds."""
        command = [
            self._install,
            *MACHINE,
            *self._places,
            "--auth-root-authentication-method=normal",
        ]
        made = subprocess.run(  # noqa: S603 - found above
            [*self._as_user, *command],
            check=False,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=self._home,
            text=True,
            errors="replace",
        )
        if made.returncode:
            msg = f"{self._install} ended with {made.returncode}:\n{made.stdout}"
            raise RuntimeError(msg)

    def _options(self) -> list[str]:
        """Return the options of a server that may have replicas, or be one."""
        # The log is never purged, so that a replica can begin with its first entry.
        log = ["--log-bin=binlog", "--binlog-format=ROW"]
        return [*log, f"--server-id={self.port}", "--gtid-strict-mode=ON"]

    def replica(self, home: Path, *, through: int | None = None) -> "MariaDbReplica":
        """Describe a replica of this server, which replays its log from the first entry on.

        Args:
            home: Empty directory for the replica's data and log, as for the server itself.
            through: TCP port on 127.0.0.1 from which the replica reads the log, such as that of a
                proxy to this server; None: the port of this server.
        """
        return MariaDbReplica(home, source=through or self.port)

    def written_gtids(self) -> str:
        """Return how far the log of a primary is: a position that replicas can reach.

        All committed transactions lie before it.

        Raises:
            pymysql.Error: The server is down.
        """
        return str(self._run("SELECT @@GLOBAL.gtid_binlog_pos"))

    def emptied(self) -> str:
        """Empty the database that tests share, and return its address."""
        self._run(f"DROP DATABASE IF EXISTS {DATABASE}", f"CREATE DATABASE {DATABASE}")
        return self.url

    def _run(self, *statements: str) -> Any:  # noqa: ANN401 - as SQL has it
        """Run *statements* as root, and return the first value that the last one selects."""
        # Here, so that the module can be imported without the driver.
        import pymysql  # noqa: PLC0415

        with (
            pymysql.connect(host=LOCALHOST, port=self.port, user="root") as connection,
            connection.cursor() as cursor,
        ):
            for statement in statements:
                cursor.execute(statement)
            row = cursor.fetchone()
        return row[0] if row else None


class MariaDbReplica(MariaDbProcess):
    """A replica that answers reads, and refuses writes, except those of root.

    Replication is asynchronous: no commit waits for the replica.

    Attributes:
        url: Address of the database that tests of the primary share, for a user who cannot write.
    """

    def __init__(self, home: Path, *, source: int) -> None:
        """Make an empty server; `start` starts it, and its replication.

        Args:
            home: Empty directory for its data and its log.
            source: TCP port on 127.0.0.1 from which it reads the log of its primary.

        Raises:
            RuntimeError: The server is not installed, or cannot make its files.
        """
        super().__init__(home)
        self.url = f"mariadb://{READER}@{LOCALHOST}:{self.port}/{DATABASE}"
        self._source = source

    def start(self) -> None:
        """Start the server, and go on with replication where it was; the primary may be down."""
        super().start()
        self._run(
            "STOP SLAVE",
            # The user is the replica's own: its log must not mention it.
            "SET SESSION sql_log_bin = 0",
            f"CREATE USER IF NOT EXISTS {READER}@{LOCALHOST!r}",
            f"GRANT ALL ON {DATABASE}.* TO {READER}@{LOCALHOST!r}",
            f"CHANGE MASTER TO MASTER_HOST={LOCALHOST!r}, MASTER_PORT={self._source}, "
            "MASTER_USER='root', MASTER_USE_GTID=slave_pos, MASTER_CONNECT_RETRY=1, "
            f"MASTER_HEARTBEAT_PERIOD={HEARTBEAT_SECONDS}",
            "START SLAVE",
        )

    def has_replayed(self, gtids: str) -> bool:
        """Tell whether readers of the replica see all that was committed before *gtids*.

        Raises:
            pymysql.Error: The server is down, or *gtids* is no position.
        """
        # 0: the replica has reached it; -1: it has not, and the wait of 0 s is over.
        return bool(self._run(f"SELECT MASTER_GTID_WAIT({gtids!r}, 0) = 0"))

    def _options(self) -> list[str]:
        # The replica gives up a link without even a heartbeat for a second.
        return [*super()._options(), "--read-only=ON", "--slave-net-timeout=1"]


def running_mariadb() -> AbstractContextManager[MariaDbProcess]:
    """Run a server without data; if none is installed, skip the test, or fail it where CI=true."""
    return running(MariaDbProcess, "MariaDB", present=find_program("mariadbd") is not None)


def running_replica_of(
    primary: MariaDbProcess, *, through: int | None = None
) -> AbstractContextManager[MariaDbReplica]:
    """Run a replica of *primary*; see `MariaDbProcess.replica`."""
    return running(lambda home: primary.replica(home, through=through), "replica", present=True)
