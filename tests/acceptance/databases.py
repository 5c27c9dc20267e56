"""The demo's databases as a test uses them."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import psycopg

from demo.databases.servers import database_url
from demo.upstreams.server import READY
from resilience.testing.ports import LOCALHOST, free_port
from resilience.testing.process import ServerProcess, import_path

SECONDS = 120.0


class RunningDatabases:
    """The program `demo.databases`, and connections to its servers."""

    def __init__(self, directory: Path) -> None:
        """Describe the program; `process.start` starts it."""
        self.ports = {name: free_port() for name in ("primary", "replica", "control")}
        options = {"port": "control", "primary-port": "primary", "replica-port": "replica"}
        words = [f"--{option}={self.ports[name]}" for option, name in options.items()]
        self.process = ServerProcess(
            [sys.executable, "-m", "demo.databases", *words],
            ready=READY,
            log_path=directory / "databases.log",
            env={"PYTHONPATH": import_path(), "TMPDIR": str(directory)},
        )

    def url(self, server: str) -> str:
        """Return the address of a server, for SQLAlchemy."""
        return database_url(self.ports[server])

    def put(self, part: str, mode: str) -> httpx.Response:
        """Break a part, or repair it."""
        url = f"http://{LOCALHOST}:{self.ports['control']}/{part}/fault"
        return httpx.put(url, json={"mode": mode}, timeout=SECONDS)

    def execute(self, server: str, statement: str) -> int:
        """Return the number that *statement* selects, or how many rows it changed."""
        url = f"postgresql://postgres@{LOCALHOST}:{self.ports[server]}/postgres"
        with psycopg.connect(url, autocommit=True) as connection:
            done = connection.execute(statement.encode())
            row = done.fetchone() if done.description else None
            return int(row[0]) if row else done.rowcount

    def orders(self, server: str) -> int:
        """Return how many orders a server shows."""
        return self.execute(server, "SELECT count(*) FROM orders")

    def add_order(self, order_id: str) -> None:
        """Commit an order to the primary."""
        values = f"'{order_id}', 7, 9, 1, 100, 'ch', now()"
        self.execute("primary", f"INSERT INTO orders VALUES ({values})")  # noqa: S608 - ours


@contextmanager
def open_directory() -> Iterator[Path]:
    """Make an empty directory that, unlike pytest's own, the servers' user can enter."""
    with TemporaryDirectory(prefix="databases-") as name:
        Path(name).chmod(0o755)
        yield Path(name)
