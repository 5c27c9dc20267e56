"""The demo's databases as its script holds them: broken and repaired over HTTP."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest

from jobs.catalogue import ORDER_COUNT
from resilience.testing.process import is_alive
from resilience.testing.waiting import wait_until
from tests.acceptance.databases import SECONDS, RunningDatabases, open_directory


@pytest.fixture
def directory() -> Iterator[Path]:
    """Return an empty directory for the program's log."""
    with open_directory() as directory:
        yield directory


@pytest.fixture
def databases(directory: Path) -> Iterator[RunningDatabases]:
    """Run the databases, which leave no file but their log."""
    running = RunningDatabases(directory)
    running.process.start()
    yield running
    running.process.stop()
    assert [one.name for one in directory.iterdir()] == ["databases.log"]


def test_replica_has_the_seed_and_follows_but_while_the_link_is_stalled(
    databases: RunningDatabases,
) -> None:
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


def test_killed_primary_comes_back_with_all_that_was_committed(databases: RunningDatabases) -> None:
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


def test_fault_that_a_part_cannot_have_is_refused(databases: RunningDatabases) -> None:
    """The answer names what it can have."""
    refused = databases.put("primary", "slow")

    assert refused.status_code == 422
    assert "ok, fail" in refused.json()["detail"]
    assert databases.put("charges", "ok").status_code == 404


def test_databases_stop_also_while_they_are_broken(databases: RunningDatabases) -> None:
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
    running = RunningDatabases(directory)
    running.process.start()
    leader = running.process.pid
    servers = psutil.Process(leader).children(recursive=True)
    assert len(servers) > 2

    os.killpg(leader, signal.SIGKILL)

    wait_until(lambda: not any(is_alive(one.pid) for one in servers), SECONDS, "all have ended")
    running.process.kill()
