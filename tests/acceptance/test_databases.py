"""The demo's databases, which its script breaks and repairs over HTTP."""

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


@pytest.fixture(scope="module")
def directory() -> Iterator[Path]:
    """An empty directory for the program's log."""
    with open_directory() as directory:
        yield directory


@pytest.fixture(scope="module")
def program(directory: Path) -> Iterator[RunningDatabases]:
    """The program that runs the databases, for all tests; a test may leave it stopped."""
    described = RunningDatabases(directory)
    yield described
    described.process.stop()


@pytest.fixture
def databases(program: RunningDatabases) -> RunningDatabases:
    """The running databases, without a fault."""
    if not program.process.running:
        program.process.start()
    return program


def test_replica_has_the_seed_and_follows_except_while_the_link_is_stalled(
    databases: RunningDatabases,
) -> None:
    """An order that was held back arrives once the link is repaired."""
    seeded = databases.orders("replica")
    assert seeded >= ORDER_COUNT

    databases.put("replication", "hang").raise_for_status()
    databases.add_order("held-back")
    assert databases.orders("primary") == seeded + 1
    assert databases.orders("replica") == seeded

    databases.put("replication", "ok").raise_for_status()
    wait_until(lambda: databases.orders("replica") == seeded + 1, SECONDS, "the order has arrived")


def test_killed_primary_comes_back_with_all_that_was_committed(databases: RunningDatabases) -> None:
    """While it is down, the replica answers; afterwards it follows again."""
    before = databases.orders("primary")
    databases.add_order("before")
    databases.put("primary", "fail").raise_for_status()

    with pytest.raises(psycopg.OperationalError):
        databases.orders("primary")
    assert databases.orders("replica") >= before

    databases.put("primary", "ok").raise_for_status()
    databases.add_order("after")
    assert databases.orders("primary") == before + 2
    wait_until(
        lambda: databases.orders("replica") == before + 2, SECONDS, "the replica follows again"
    )


def test_fault_that_a_part_cannot_have_is_refused(databases: RunningDatabases) -> None:
    """The answer names the faults that the part can have."""
    refused = databases.put("primary", "slow")

    assert refused.status_code == 422
    assert "ok, fail" in refused.json()["detail"]
    assert databases.put("charges", "ok").status_code == 404


@pytest.mark.long
def test_databases_stop_also_while_they_are_broken_and_leave_no_file_but_their_log(
    databases: RunningDatabases, directory: Path
) -> None:
    """A primary waits for a replica that is cut off, but the program ends it."""
    databases.put("replication", "hang").raise_for_status()
    databases.add_order("never-sent")
    servers = psutil.Process(databases.process.pid).children(recursive=True)

    databases.process.send_signal(signal.SIGTERM)

    wait_until(lambda: not databases.process.running, SECONDS, "the program has ended")
    assert not any(is_alive(one.pid) for one in servers)
    assert [one.name for one in directory.iterdir()] == ["databases.log"]


@pytest.mark.long
def test_killed_program_takes_its_servers_along(databases: RunningDatabases) -> None:
    """A supervisor that kills the program's process group leaves no server behind."""
    leader = databases.process.pid
    servers = psutil.Process(leader).children(recursive=True)
    assert len(servers) > 2

    os.killpg(leader, signal.SIGKILL)

    wait_until(lambda: not any(is_alive(one.pid) for one in servers), SECONDS, "all have ended")
    databases.process.kill()
