"""What a session is shown after a failover, depending on what it had seen before."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psycopg
import pytest
from sqlalchemy.exc import OperationalError

from resilience.consistency import ConsistentSession, in_session
from resilience.databases import Databases
from resilience.testing.homes import running
from resilience.testing.postgres import PostgresReplica
from resilience.testing.waiting import wait_until
from tests.replicated import SECONDS, Stage, read, running_stage, write


@pytest.fixture
def stage() -> Iterator[Stage]:
    """A stage for one test, in which the first replica takes over."""
    with running_stage(replicas=2) as stage:
        yield stage


def change(stage: Stage, note: int, body: str) -> None:
    """Commit another body of the note, as another process would."""
    with psycopg.connect(stage.primary.url) as connection:
        connection.execute("UPDATE notes SET body = %s WHERE id = %s", [body, note])


def successor(stage: Stage) -> PostgresReplica:
    """Return the replica that takes over."""
    first = stage.replicas[0]
    assert isinstance(first, PostgresReplica)
    return first


def follower(stage: Stage) -> PostgresReplica:
    """Return the other replica."""
    second = stage.replicas[1]
    assert isinstance(second, PostgresReplica)
    return second


def take_over(stage: Stage, *clients: Databases) -> None:
    """Kill the primary, promote the first replica, and lead *clients* to it."""
    stage.primary.kill()
    stage.links[0].cut()
    successor(stage).promote()
    stage.front.lead_to(successor(stage).port)
    stage.front.cut()
    for databases in clients:
        with suppress(OperationalError), in_session(ConsistentSession()):
            read(databases, 0, using="primary")  # fails on a connection to the old primary


def follow(stage: Stage) -> None:
    """Let the second replica stream from the first, than which it must not have more."""
    second = follower(stage)
    with psycopg.connect(successor(stage).url, autocommit=True) as connection:
        slot = f"replica_{second.port}"
        connection.execute("SELECT pg_create_physical_replication_slot(%s, true)", [slot])
    stage.links[1].lead_to(successor(stage).port)
    stage.links[1].cut()
    stage.links[1].resume()
    level(stage, second)


def level(stage: Stage, replica: PostgresReplica) -> None:
    """Wait until a replica has what the new primary has."""
    lsn = successor(stage).flushed_lsn()
    wait_until(lambda: replica.has_replayed(lsn), SECONDS, "the replica follows the new primary")


def only_follower(stage: Stage) -> Databases:
    """Return databases with the second replica only, where every read may fall back."""
    return stage.databases(
        replicas=[follower(stage).url], wait_seconds=0.0, primary_fallback_share=1.0
    )


def test_answer_is_marked_for_who_saw_what_the_new_primary_lacks_and_for_nobody_else(
    stage: Stage,
) -> None:
    """The new primary and its replica lack what a session has seen from the old primary.

    That session gets marked answers, even if its process never asked the old primary for its
    position. A session that began after the failover has not seen it: its answers are not marked.
    """
    unharmed = only_follower(stage)
    there = write(unharmed, "there")
    stage.level()
    read(unharmed, there)
    # For each way to read afterwards, from the primary or from any: a process and a session.
    seen = {using: (only_follower(stage), ConsistentSession()) for using in ("primary", None)}
    notes = {using: write(databases, "old") for using, (databases, _) in seen.items()}
    stage.level()
    for using, (databases, session) in seen.items():
        with in_session(ConsistentSession()):
            assert read(databases, notes[using]) == ("old", "replica")
        with in_session(session):
            assert read(databases, notes[using], using="primary") == ("old", "primary")
    with cut_off(stage):
        for using, (databases, session) in seen.items():
            change(stage, notes[using], "new")
            with in_session(session):
                assert read(databases, notes[using], using="primary") == ("new", "primary")
        take_over(stage, unharmed, *(databases for databases, _ in seen.values()))
    follow(stage)
    for using, (databases, session) in seen.items():
        with in_session(ConsistentSession()):
            read(databases, notes[using])  # measures the position of the replica
        databases.wait_seconds = SECONDS
        with in_session(session):
            assert read(databases, notes[using], using=using)[0] == "old"
        assert session.marks, using
    write(unharmed, "on the new timeline")
    level(stage, follower(stage))
    unharmed.wait_seconds = SECONDS
    with in_session(ConsistentSession()) as session:
        assert read(unharmed, there) == ("there", "replica")
        assert read(unharmed, there, using="primary") == ("there", "primary")
    assert not session.marks


@pytest.mark.long
def test_answer_is_marked_when_a_replica_was_made_anew_from_the_new_primary(stage: Stage) -> None:
    """The old replica at the same address had replayed what was lost; the new one has not."""
    databases = only_follower(stage)
    note = write(databases, "old")
    stage.level()
    with in_session(ConsistentSession()) as session:
        stage.links[0].stall()
        change(stage, note, "new")
        lsn = stage.primary.flushed_lsn()
        second = follower(stage)
        wait_until(lambda: second.has_replayed(lsn), SECONDS, "the second replica has it")
        assert read(databases, note) == ("new", "replica")
        session.token()
        take_over(stage, databases)
        second.stop()
        with psycopg.connect(successor(stage).url, autocommit=True) as connection:
            # Beyond the lost position: to compare positions alone no longer shows the loss.
            passed = "SELECT pg_current_wal_flush_lsn() > %s::pg_lsn"
            while connection.execute(passed, [lsn]).fetchone() == (False,):
                connection.execute("INSERT INTO notes (body) VALUES ('of another')")
        with new_replica(stage, second.port) as replica:
            level(stage, replica)
            shown = read(databases, note)

    assert shown[0] == "old"
    assert session.marks


@contextmanager
def cut_off(stage: Stage) -> Iterator[None]:
    """Let no replica receive what is written in the block, nor afterwards."""
    for link in stage.links:
        link.stall()
    yield
    for link in stage.links:
        link.cut()


@contextmanager
def new_replica(stage: Stage, port: int) -> Iterator[PostgresReplica]:
    """Run a new replica of the new primary on *port*."""
    first = successor(stage)
    with running(lambda home: first.replica(home, port=port), "replica", present=True) as replica:
        yield replica
