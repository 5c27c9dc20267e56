"""What sessions see and get while the primary is down, and once another has taken over."""

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from resilience.clock import SystemClock
from resilience.testing.postgres import PostgresReplica
from resilience.testing.valkey import ValkeyProcess
from resilience.testing.waiting import wait_until
from tests.history import Operation
from tests.integration.consistency_load import Run, Verdict, nemesis
from tests.integration.consistency_stage import SECONDS, Stage, running_postgres_stage

ENDLESS = 10**6
SOME = 80
"""Operations, in each part of a test."""
REFUSED_SECONDS = 0.25
ANSWERED_SECONDS = 1.0


@pytest.fixture
def stage(valkey: ValkeyProcess) -> Iterator[Stage]:
    """A stage of its own, whose clients reach whoever is the primary at one address."""
    valkey.flush()
    with running_postgres_stage(valkey.url, behind_front=True) as stage:
        yield stage


@pytest.fixture(scope="module")
def shared_stage(valkey: ValkeyProcess) -> Iterator[Stage]:
    """Such a stage for tests after which its primary is up again, and for the last of the file."""
    with running_postgres_stage(valkey.url, behind_front=True) as stage:
        yield stage


class Parts:
    """The parts of a test, by when they began."""

    def __init__(self) -> None:
        """Begin the first."""
        self._clock = SystemClock()
        self._starts = [self._clock.monotonic()]

    def next(self) -> None:
        """Begin another."""
        self._starts.append(self._clock.monotonic())

    def of(self, history: list[Operation]) -> list[list[Operation]]:
        """Return what was begun and over in each."""
        ends = [*self._starts[1:], self._clock.monotonic()]
        return [
            [one for one in history if began < one.started and one.ended < ended]
            for began, ended in zip(self._starts, ends, strict=True)
        ]


def take_over(stage: Stage, successor: PostgresReplica) -> None:
    """Promote a replica, and lead clients to it."""
    successor.promote()
    stage.front.lead_to(successor.port)
    stage.front.cut()


def follow(stage: Stage, successor: PostgresReplica, number: int) -> None:
    """Let the replica with this number stream from the new primary."""
    follower, link = followers(stage)[number], stage.links[number]
    with psycopg.connect(successor.url, autocommit=True) as connection:
        slot = f"replica_{follower.port}"
        connection.execute("SELECT pg_create_physical_replication_slot(%s, true)", [slot])
    link.lead_to(successor.port)
    link.cut()


def received(replica: PostgresReplica) -> int:
    """Return how much of the log a replica has."""
    with psycopg.connect(replica.url) as connection:
        row = connection.execute("SELECT pg_last_wal_receive_lsn() - '0/0'").fetchone()
    return int(row[0]) if row else 0


def seconds_of(operations: list[Operation]) -> float:
    """Return how long 99 of 100 took at most."""
    times = sorted(one.ended - one.started for one in operations)
    return times[int(0.99 * len(times))]


@pytest.mark.timeout(240)
@pytest.mark.parametrize("router", ["Routed", pytest.param("RoutedAsync", marks=pytest.mark.long)])
def test_reads_go_on_and_writes_fail_fast_while_the_primary_is_down(
    shared_stage: Stage, tmp_path: Path, router: str
) -> None:
    """Replicas answer; a write is refused with an error that says so, before it waits."""
    stage = shared_stage
    load = stage.load(router, tmp_path, ENDLESS)
    run, parts = Run(load), Parts()
    with nemesis(stage.links, 0, run), run.running():
        run.await_more(SOME)
        stage.primary.kill()
        run.await_more(SOME)  # in which that is noticed
        parts.next()
        run.await_more(2 * SOME)
        parts.next()
        stage.primary.start()
        run.await_write()
        run.stop()
    verdict = stage.judge(load, run)

    _, down, _ = parts.of(verdict.history)
    reads = [one for one in down if one.op == "read"]
    writes = [one for one in down if one.op == "write"]
    assert verdict.violations == []
    assert verdict.lost == set()
    assert len(reads) > SOME / 2
    assert not [one.error for one in reads if one.error]
    assert seconds_of(reads) < ANSWERED_SECONDS
    assert writes
    assert {one.error.split(":")[0] for one in writes} == {"DatabaseUnavailableError"}
    assert {one.outcome for one in writes} == {"failed"}
    assert seconds_of(writes) < REFUSED_SECONDS


@pytest.mark.long
@pytest.mark.timeout(240)
def test_sessions_keep_their_guarantees_when_a_replica_that_has_everything_takes_over(
    stage: Stage, tmp_path: Path
) -> None:
    """The other replica follows it to the new timeline, and is read from again."""
    replicas = followers(stage)
    load = stage.load("Routed", tmp_path, ENDLESS)
    run, parts = Run(load), Parts()
    with run.running():
        run.await_more(SOME)
        stage.primary.kill()
        run.await_more(SOME)
        successor = max(replicas, key=received)
        take_over(stage, successor)
        other = 1 - replicas.index(successor)
        follow(stage, successor, other)
        run.await_write()
        lsn = successor.flushed_lsn()
        wait_until(lambda: replicas[other].has_replayed(lsn), SECONDS, "it follows")
        parts.next()
        run.await_more(2 * SOME)
        run.stop()
    verdict = stage.judge(load, run)

    _, after = parts.of(verdict.history)
    assert verdict.violations == []
    assert not [one.error for one in after if one.error]
    newcomers = Verdict.of(begun(after, verdict), {str(replicas[other].port)})
    assert newcomers.replica_share > 0.5
    assert not [one for one in newcomers.answered if one.marked and one.lag is None]


@pytest.mark.long
@pytest.mark.timeout(240)
def test_sessions_keep_their_guarantees_or_are_told_when_a_replica_takes_over_that_lacks_writes(
    shared_stage: Stage, tmp_path: Path
) -> None:
    """What was lost with the old primary is missed by no answer that is not marked.

    The other replica has it, and goes on to show it: on a timeline that nobody else is on.
    """
    stage = shared_stage
    load = stage.load("Routed", tmp_path, ENDLESS)
    run, parts = Run(load), Parts()
    with run.running():
        run.await_more(SOME)
        stage.links[0].stall()
        run.await_more(SOME)
        stage.primary.kill()
        run.await_more(SOME)
        take_over(stage, followers(stage)[0])
        run.await_write()
        parts.next()
        run.await_more(2 * SOME)
        run.stop()
        stage.links[0].resume()
    verdict = stage.judge(load, run)

    _, after = parts.of(verdict.history)
    assert verdict.lost
    assert verdict.violations == []
    assert not [one.error for one in after if one.error]
    assert [one for one in after if one.op == "read" and one.marked]


def followers(stage: Stage) -> list[PostgresReplica]:
    """Return the stage's replicas, which are PostgreSQL's here."""
    return [replica for replica in stage.replicas if isinstance(replica, PostgresReplica)]


def begun(part: list[Operation], verdict: Verdict) -> list[Operation]:
    """Return what was done in a part of the history by sessions that began in it."""
    first = min(one.started for one in part)
    before = {one.session for one in verdict.history if one.started < first}
    return [one for one in part if one.session not in before]
