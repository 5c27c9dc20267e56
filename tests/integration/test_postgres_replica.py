"""A real primary and its streaming replicas, as tests of reads behind a primary need them."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psycopg
import pytest

from resilience.testing.postgres import (
    PostgresProcess,
    PostgresReplica,
    running_postgres,
    running_replica,
)
from resilience.testing.proxy import TcpProxy
from resilience.testing.waiting import wait_until

SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Pair:
    """A primary with a table of notes, and a replica that streams through a proxy."""

    primary: PostgresProcess
    link: TcpProxy
    replica: PostgresReplica


@contextmanager
def running_pair() -> Iterator[Pair]:
    """Run a pair of its own, the replica level with the primary."""
    with running_postgres() as primary:
        with psycopg.connect(primary.url) as connection:
            connection.execute("CREATE TABLE notes (body text)")
        link = TcpProxy(primary.port)
        try:
            with running_replica(primary, through=link.port) as replica:
                await_replay(replica, primary.flushed_lsn())
                yield Pair(primary, link, replica)
        finally:
            link.close()


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    """A pair for tests that leave it as they found it, but for the notes."""
    with running_pair() as pair:
        yield pair


def write(server: PostgresProcess, note: str) -> str:
    """Commit a note, and return the position behind it."""
    with psycopg.connect(server.url) as connection:
        connection.execute("INSERT INTO notes VALUES (%s)", [note])
    return server.flushed_lsn()


def has(server: PostgresProcess, note: str) -> bool:
    """Tell whether a reader of *server* sees the note."""
    with psycopg.connect(server.url) as connection:
        found = connection.execute("SELECT FROM notes WHERE body = %s", [note])
        return found.fetchone() is not None


def await_replay(replica: PostgresReplica, lsn: str) -> None:
    """Wait until readers of the replica see what was committed before *lsn*."""
    wait_until(lambda: replica.has_replayed(lsn), SECONDS, f"{lsn} is replayed")


def test_replica_shows_a_write_when_it_has_replayed_its_position(pair: Pair) -> None:
    """The position taken after a commit is one that the replica reaches, and it covers the row."""
    await_replay(pair.replica, write(pair.primary, "streamed"))

    assert has(pair.replica, "streamed")


def test_replica_refuses_a_write_while_it_is_one(pair: Pair) -> None:
    """Only the primary takes writes."""
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        write(pair.replica, "to the wrong one")


def test_replica_stays_behind_while_its_link_is_stalled(pair: Pair) -> None:
    """Another replica, on a link of its own, gets what this one lacks until its link resumes."""
    with running_replica(pair.primary) as other:
        pair.link.stall()
        try:
            for number in range(20):
                lsn = write(pair.primary, f"stalled {number}")
                await_replay(other, lsn)
            seen = [has(pair.replica, f"stalled {number}") for number in (0, 19)]
            behind = not pair.replica.has_replayed(lsn)
        finally:
            pair.link.resume()

    assert seen == [False, False]
    assert behind
    await_replay(pair.replica, lsn)
    assert has(pair.replica, "stalled 19")


def test_replica_catches_up_when_its_lost_link_is_cut(pair: Pair) -> None:
    """What a link lost in silence comes again over the next one."""
    pair.link.swallow()
    lsn = write(pair.primary, "swallowed")
    pair.link.heal()
    pair.link.cut()

    await_replay(pair.replica, lsn)
    assert has(pair.replica, "swallowed")


def test_replica_catches_up_after_a_kill_when_the_primary_removed_old_segments(pair: Pair) -> None:
    """The primary keeps the part of its log that a replica which is down has not read."""
    pair.replica.kill()
    lsn = write(pair.primary, "while it was down")
    with psycopg.connect(pair.primary.url, autocommit=True) as connection:
        for _ in range(3):
            connection.execute("SELECT pg_switch_wal()")
            connection.execute("CHECKPOINT")
            write(pair.primary, "to fill the next segment")
    pair.replica.start()

    await_replay(pair.replica, lsn)
    assert has(pair.replica, "while it was down")


@pytest.mark.long
def test_promoted_replica_takes_writes_on_a_new_timeline_when_the_primary_was_killed() -> None:
    """What it had replayed is there; it remains a primary when it is killed and started again."""
    with running_pair() as pair:
        before = pair.primary.timeline()
        await_replay(pair.replica, write(pair.primary, "before"))
        pair.primary.kill()

        pair.replica.promote()

        write(pair.replica, "after")
        assert (before, pair.replica.timeline()) == (1, 2)
        pair.replica.kill()
        pair.replica.start()
        assert has(pair.replica, "before")
        assert has(pair.replica, "after")
        assert pair.replica.timeline() == 2
