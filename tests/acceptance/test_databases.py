"""The demo's databases as its script holds them: broken and repaired over HTTP."""

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import psutil
import psycopg
import pytest

from demo.upstreams.server import READY
from jobs.catalogue import ORDER_COUNT
from resilience.testing.ports import LOCALHOST, free_port
from resilience.testing.process import ServerProcess, import_path, is_alive
from resilience.testing.waiting import wait_until

SECONDS = 20.0


class Running:
    """The program `demo.databases`, and connections to its servers."""

    def __init__(self, directory: Path) -> None:
        """Describe it; `process.start` starts it."""
        self.ports = {name: free_port() for name in ("primary", "replica", "control")}
        options = {"port": "control", "primary-port": "primary", "replica-port": "replica"}
        words = [f"--{option}={self.ports[name]}" for option, name in options.items()]
        self.process = ServerProcess(
            [sys.executable, "-m", "demo.databases", *words],
            ready=READY,
            log_path=directory / "databases.log",
            env={"PYTHONPATH": import_path(), "TMPDIR": str(directory)},
        )

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


@pytest.fixture
def directory() -> Iterator[Path]:
    """Return an empty directory that whoever runs the servers can enter, unlike pytest's own."""
    with TemporaryDirectory(prefix="databases-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
def databases(directory: Path) -> Iterator[Running]:
    """Run the databases, which leave no file but their log."""
    running = Running(directory)
    running.process.start()
    yield running
    running.process.stop()
    assert [one.name for one in directory.iterdir()] == ["databases.log"]


def test_replica_has_the_seed_and_follows_but_while_the_link_is_stalled(databases: Running) -> None:
    """What is held back arrives when the link is repaired."""
    assert databases.orders("replica") == ORDER_COUNT

    databases.put("replication", "hang").raise_for_status()
    databases.add_order("held-back")
    assert databases.orders("primary") == ORDER_COUNT + 1
    assert databases.orders("replica") == ORDER_COUNT

    databases.put("replication", "ok").raise_for_status()
    wait_until(
        lambda: databases.orders("replica") == ORDER_COUNT + 1, SECONDS, "the order has arrived"
    )


def test_killed_primary_comes_back_with_all_that_was_committed(databases: Running) -> None:
    """Meanwhile nobody is connected and the replica answers; it follows again afterwards."""
    databases.add_order("before")
    databases.put("primary", "fail").raise_for_status()

    with pytest.raises(psycopg.OperationalError):
        databases.orders("primary")
    assert databases.orders("replica") >= ORDER_COUNT

    databases.put("primary", "ok").raise_for_status()
    databases.add_order("after")
    assert databases.orders("primary") == ORDER_COUNT + 2
    wait_until(
        lambda: databases.orders("replica") == ORDER_COUNT + 2, SECONDS, "the replica follows again"
    )


def test_fault_that_a_part_cannot_have_is_refused(databases: Running) -> None:
    """The answer names what it can have."""
    refused = databases.put("primary", "slow")

    assert refused.status_code == 422
    assert "ok, fail" in refused.json()["detail"]
    assert databases.put("charges", "ok").status_code == 404


def test_databases_stop_also_while_they_are_broken(databases: Running) -> None:
    """A primary waits for a replica that is cut off; the program does not let it."""
    databases.put("replication", "hang").raise_for_status()
    databases.add_order("never-sent")
    leader = databases.process.pid
    servers = psutil.Process(leader).children(recursive=True)

    databases.process.send_signal(signal.SIGTERM)

    wait_until(lambda: not databases.process.running, SECONDS, "the program has ended")
    assert not any(is_alive(one.pid) for one in servers)


def test_killed_program_takes_its_servers_along(directory: Path) -> None:
    """Who kills the group of the program, as a supervisor does, leaves no server behind."""
    running = Running(directory)
    running.process.start()
    leader = running.process.pid
    servers = psutil.Process(leader).children(recursive=True)
    assert len(servers) > 2

    os.killpg(leader, signal.SIGKILL)

    wait_until(lambda: not any(is_alive(one.pid) for one in servers), SECONDS, "all have ended")
    running.process.kill()
