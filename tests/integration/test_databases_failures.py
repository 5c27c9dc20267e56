"""Reads of one user while servers are away, late, or not what they seem to be."""

from contextlib import suppress
from statistics import median
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from sqlalchemy import update
from sqlalchemy.exc import OperationalError

from resilience.consistency import ConsistentSession, in_session
from resilience.consistency.errors import DatabaseUnavailableError
from resilience.consistency.shared import LagOrder, SharedPositions
from resilience.events import ReplicaLagging
from resilience.events.crowds import Crowds
from resilience.levels import Level
from resilience.store import Store
from resilience.testing.postgres import running_postgres, running_replica
from resilience.testing.proxy import TcpProxy
from resilience.testing.valkey import ValkeyProcess
from resilience.testing.waiting import wait_until
from tests.replicated import SECONDS, Note, Stage, read, running_stage, timed, write

PATIENT = {"wait_seconds": 5.0, "primary_fallback_share": 1.0}
"""Of databases in tests of what is read, not of who is asked first."""


def test_unreachable_replica_delays_nobody(stage: Stage) -> None:
    """After the first read its circuit is open, and the other replica answers."""
    gone = TcpProxy(stage.replicas[0].port)
    address = stage.replicas[0].url.replace(str(stage.replicas[0].port), str(gone.port))
    gone.close()
    databases = stage.databases(replicas=[address, stage.replicas[1].url], **PATIENT)
    healthy = stage.databases(replicas=[stage.replicas[1].url], **PATIENT)
    with in_session(ConsistentSession()):
        note = write(databases, "there")
        stage.level()
        answers = [read(databases, note) for _ in range(20)]
        read(healthy, note)
        pairs = [
            (timed(lambda: read(databases, note)), timed(lambda: read(healthy, note)))
            for _ in range(40)
        ]

    assert answers == [("there", "replica")] * 20
    with_a_dead_one, control = map(median, zip(*pairs, strict=True))
    assert with_a_dead_one < 2 * control + 0.05


def test_primary_that_hangs_delays_no_read_from_a_replica(stage: Stage) -> None:
    """Where it is is asked beside the reads."""
    databases = stage.databases(wait_seconds=0.01)
    with in_session(ConsistentSession()):
        note = write(databases, "there")
        stage.level()
    read(databases, note)
    stage.front.stall()
    try:
        slowest = max(timed(lambda: read(databases, note)) for _ in range(400))
    finally:
        stage.front.resume()

    assert slowest < 0.5


def test_everybody_reads_from_replicas_while_the_primary_is_away(stage: Stage) -> None:
    """Writes fail typed; reads of others' data go on; own writes that no replica has are marked."""
    databases = stage.databases(wait_seconds=0.01)
    with in_session(ConsistentSession()) as session:
        note = write(databases, "replayed")
        stage.level()
        read(databases, note)
        with stage.stalled():
            late = write(databases, "not replayed")
            token = session.token()
            stage.front.lead_to(1)
            stage.front.cut()
            try:
                with pytest.raises(OperationalError):  # the connection that was cut
                    write(databases, "never")
                with pytest.raises(DatabaseUnavailableError) as refused:
                    write(databases, "never")
                with in_session(ConsistentSession()) as other:
                    assert read(databases, note) == ("replayed", "replica")
                    assert other.level is Level.FULL
                with in_session(ConsistentSession(token=token)) as own:
                    assert read(databases, late) == (None, "replica")
                    assert own.level is Level.STALE
                    assert own.lag_seconds is not None
            finally:
                stage.front.lead_to(stage.primary.port)
    assert "primary" in str(refused.value)


def test_replica_beyond_the_lag_that_is_allowed_answers_only_by_order(
    stage: Stage, valkey: ValkeyProcess
) -> None:
    """`max_lag_seconds` holds until an operator orders otherwise; the order comes by the store."""
    store = Store(valkey.url, namespace=uuid4().hex, timeout_seconds=5.0)
    databases = stage.databases(store, wait_seconds=0.0, max_lag_seconds=0.0)
    with in_session(ConsistentSession()):
        note = write(databases, "late")
    stage.level()
    before = read(databases, note)
    assert any(isinstance(event, ReplicaLagging) for event in stage.events)

    order = LagOrder(seconds=None, until=None, actor="ann", reason="backfill", since=0.0)
    SharedPositions(store).order("default", order)

    assert before == ("late", "primary")
    wait_until(
        lambda: read(databases, note) == ("late", "replica"), SECONDS, "the order is heard of"
    )
    databases.close()
    store.client.close()


def test_old_backup_under_the_address_of_a_replica_is_refused(stage: Stage) -> None:
    """It shows less than the replica did before, and has the same name, cluster and timeline."""
    link = TcpProxy(stage.primary.port)
    with running_replica(stage.primary, through=link.port) as backup:
        link.stall()
        address = TcpProxy(stage.replicas[0].port)
        url = stage.replicas[0].url.replace(str(stage.replicas[0].port), str(address.port))
        databases = stage.databases(replicas=[url], wait_seconds=0.0)
        with in_session(ConsistentSession()):
            note = write(databases, "newer than the backup")
        stage.level()
        assert read(databases, note) == ("newer than the backup", "replica")

        address.lead_to(backup.port)
        address.cut()
        with suppress(OperationalError):  # the connection that was cut
            read(databases, note)

        def is_refused() -> bool:
            assert read(databases, note) == ("newer than the backup", "primary")
            return "old backup" in str(stage.events)

        wait_until(is_refused, SECONDS, "its circuit has closed, and it was asked")
        databases.close()
        address.close()
        link.close()


def test_replica_of_another_cluster_is_refused(stage: Stage) -> None:
    """It has a later position, and rows under the same ids: it must not answer."""
    with running_postgres() as stranger, running_replica(stranger) as replica:
        for server in (stranger,):
            with psycopg.connect(server.url) as connection:
                connection.execute("CREATE TABLE notes (id int, body text)")
                connection.execute(
                    "INSERT INTO notes SELECT g, 'wrong' FROM generate_series(1, 9999) g"
                )
        lsn = stranger.flushed_lsn()
        while not replica.has_replayed(lsn):
            pass
        databases = stage.databases(replicas=[replica.url])
        with in_session(ConsistentSession()):
            note = write(databases, "right")
            answer = read(databases, note)
        plain = read(databases, note)

    assert answer == plain == ("right", "primary")
    assert "belongs to the cluster" in str(stage.events)


def test_server_that_takes_writes_is_no_replica(stage: Stage) -> None:
    """The primary itself, or a promoted replica, under a replica's address is refused."""
    databases = stage.databases(replicas=[stage.primary.url])
    with in_session(ConsistentSession()):
        note = write(databases, "right")
        read(databases, note)

    assert "it takes writes" in str(stage.events)


def test_primary_address_that_leads_to_a_replica_is_refused(stage: Stage) -> None:
    """It would answer old rows as if they were the newest."""
    databases = stage.databases(primary=stage.replicas[0].url, replicas=[stage.replicas[1].url])

    with pytest.raises(DatabaseUnavailableError, match="it is a replica"):
        write(databases, "nowhere")


def test_replica_that_nobody_can_compare_is_marked(stage: Stage) -> None:
    """While nobody has seen the primary, nobody is known to have caught up."""
    note = write(stage.databases(replicas=[]), "there")
    stage.level()
    stage.front.lead_to(1)
    stage.front.cut()
    try:
        databases = stage.databases()
        with in_session(ConsistentSession()) as session:
            assert read(databases, note) == ("there", "replica")
            assert [mark.lag_seconds for mark in session.marks] == [None]
    finally:
        stage.front.lead_to(stage.primary.port)


def test_many_late_reads_are_one_line_of_the_log(stage: Stage) -> None:
    """A replica beyond the limit is announced once a read, and not waited for."""
    databases = stage.databases(wait_seconds=5.0, max_lag_seconds=0.0, primary_fallback_share=1.0)
    with in_session(ConsistentSession()):
        note = write(databases, "late")
    stage.level()
    seconds = timed(lambda: [read(databases, note) for _ in range(20)])
    lagging = [event for event in stage.events if isinstance(event, ReplicaLagging)]

    assert seconds < 5.0
    assert len(lagging) <= 2 * 20
    crowds = Crowds()
    assert sum(crowds.pick(event) is not None for event in lagging) <= 2 * (seconds + 1)


def test_promoted_primary_marks_what_may_be_lost() -> None:
    """A position of the old timeline is accepted by nobody, though its number is passed."""
    with running_stage() as stage:
        databases = stage.databases(wait_seconds=0.0)
        with in_session(ConsistentSession()) as session:
            write(databases, "kept")
            stage.level()
            stage.links[0].stall()
            lost = write(databases, "lost")
            token = session.token()
        stage.primary.kill()
        stage.links[0].cut()
        stage.links[0].resume()
        promoted: Any = stage.replicas[0]
        promoted.promote()
        stage.front.cut()
        stage.front.lead_to(promoted.port)
        after = stage.databases(replicas=[])
        for _ in range(50):
            write(after, "so that numbers go on")
        with in_session(ConsistentSession(token=token)) as own:
            assert read(after, lost)[0] is None
            assert own.level is Level.STALE
        with in_session(ConsistentSession(token=token)) as own:
            compared = stage.databases(replicas=[stage.primary.url], wait_seconds=0.0)
            assert read(compared, lost) == (None, "primary")
            assert own.level is Level.STALE
            assert "failover" in own.marks[0].reason


@pytest.mark.long
def test_replica_on_another_timeline_answers_only_what_is_marked() -> None:
    """After a failover without it, it is better than nobody while the primary is away."""
    with running_stage(replicas=2) as stage:
        databases = stage.databases(wait_seconds=0.0)
        with in_session(ConsistentSession()):
            note = write(databases, "kept")
        stage.level()
        stage.primary.kill()
        promoted: Any = stage.replicas[0]
        promoted.promote()
        stage.front.cut()
        stage.front.lead_to(promoted.port)
        after = stage.databases(replicas=[stage.replicas[1].url], wait_seconds=0.0)
        with in_session(ConsistentSession()):
            write(after, "on the new timeline")
        assert read(after, note) == ("kept", "primary")

        stage.front.lead_to(1)
        stage.front.cut()
        after.close()
        with in_session(ConsistentSession()) as session:
            assert read(after, note) == ("kept", "replica")
            assert session.level is Level.STALE
            assert "another timeline" in session.marks[0].reason


def test_write_whose_commit_nobody_confirmed_is_read_from_the_primary(stage: Stage) -> None:
    """It may be there or not; a replica is not asked before it has all that the primary has."""
    databases = stage.databases(wait_seconds=0.0)
    with in_session(ConsistentSession()) as session:
        note = write(databases, "sure")
        stage.level()
        with stage.stalled():
            with databases.Session() as unsure:
                unsure.execute(update(Note).values(body="unsure").where(Note.id == note))
                stage.front.cut()
                with pytest.raises(Exception, match=r"server closed|terminat|closed"):
                    unsure.commit()
            assert session.is_unknown("default")
            databases.close()  # pooled connections that were cut
            assert read(databases, note)[1] == "primary"
