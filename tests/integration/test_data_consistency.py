"""Where tasks read: `data_consistency` is always, sticky or delayed."""

from collections.abc import Iterator
from time import perf_counter
from typing import Any

import pytest
from celery import chord

from resilience import ConfigurationError, ResilientTask
from resilience.testing.waiting import wait_until
from tests.integration.apps.positions_stage import SECONDS, Stage, new_keys, running_stage
from tests.replicated import Stage as Replicated

POSTPONE_SECONDS = 1.0

POSTPONED_SECONDS_MIN = 0.8 * POSTPONE_SECONDS


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, replicated: Replicated) -> Iterator[Stage]:
    """Servers and a worker, whose log says which jobs are postponed."""
    with running_stage(tmp_path_factory, replicated) as stage:
        yield stage


@pytest.fixture
def stage(running: Stage) -> Iterator[Stage]:
    """The same, with a replica that lags."""
    running.fall_behind()
    yield running
    running.link.resume()


def publish(stage: Stage, task: str, key: str, **options: Any) -> Any:  # noqa: ANN401 - as Celery's
    """Write the row *key*, and publish a job that reads it; return its result."""
    with stage.adopted.consistent_session():
        stage.write(key)
        return stage.s(task, key).apply_async(**options)


def postponements(stage: Stage, job: str) -> int:
    """Return how often *job* was postponed, according to the worker's log."""
    assert stage.worker is not None
    return stage.worker.log.count(f"[{job}] retry: ")


def test_always_reads_from_the_primary(stage: Stage) -> None:
    """Even if its session has written nothing."""
    [key] = new_keys(1)
    stage.write(key)
    result = stage.s("always.look", key).apply_async()
    assert result.get(timeout=SECONDS) == ["seen", "primary"]


def test_sticky_does_not_wait_for_a_replica(stage: Stage) -> None:
    """If no replica has what the job must see, the primary answers at once."""
    [key] = new_keys(1)
    result = publish(stage, "sticky.look", key)
    assert result.get(timeout=SECONDS) == ["seen", "primary"]
    assert postponements(stage, result.id) == 0


def test_sticky_reads_from_a_replica_that_has_it(stage: Stage) -> None:
    """A job whose session has written nothing reads from any, however far that lags."""
    [key] = new_keys(1)
    result = stage.s("sticky.look", key).apply_async()
    stage.write(key)
    assert result.get(timeout=SECONDS) == ["missing", "replica"]


def test_delayed_waits_once_and_then_asks_the_primary(stage: Stage) -> None:
    """That spends no attempt: the job waits in the worker's main process."""
    [key] = new_keys(1)
    began = perf_counter()
    result = publish(stage, "delayed.look", key)
    assert result.get(timeout=SECONDS) == ["seen", "primary"]
    assert perf_counter() - began >= POSTPONED_SECONDS_MIN
    assert postponements(stage, result.id) == 1
    assert result.retries in {None, 0}


def test_delayed_reads_from_the_replica_that_has_caught_up(stage: Stage) -> None:
    """After the wait the replica has the row, and the primary is not asked."""
    [key] = new_keys(1)
    result = publish(stage, "delayed.look", key)
    wait_until(lambda: postponements(stage, result.id), SECONDS, "it is postponed")
    stage.catch_up()
    assert result.get(timeout=SECONDS) == ["seen", "replica"]
    assert postponements(stage, result.id) == 1


def test_delayed_does_not_wait_for_what_a_replica_has(stage: Stage) -> None:
    """Nor does a job wait whose session has written nothing."""
    [key] = new_keys(1)
    with stage.adopted.consistent_session():
        stage.write(key)
        stage.catch_up()
        result = stage.s("delayed.look", key).apply_async()
    assert result.get(timeout=SECONDS) == ["seen", "replica"]
    other = stage.s("delayed.look", key).apply_async()
    assert other.get(timeout=SECONDS) == ["seen", "replica"]
    assert [postponements(stage, job.id) for job in (result, other)] == [0, 0]


def test_delayed_does_not_wait_beyond_its_budget(stage: Stage) -> None:
    """A job whose budget leaves no second for the wait runs at once."""
    [key] = new_keys(1)
    result = publish(stage, "delayed.look", key, budget=1.5 * POSTPONE_SECONDS)
    assert result.get(timeout=SECONDS) == ["seen", "primary"]
    assert postponements(stage, result.id) == 0


def test_postponed_members_stay_in_their_chord(stage: Stage) -> None:
    """The body runs after them, with their values."""
    keys = new_keys(2)
    with stage.adopted.consistent_session():
        for key in keys:
            stage.write(key)
        header = [stage.s("delayed.seen", key) for key in keys]
        result = chord(header, stage.s("plain.seen")).apply_async()
    assert result.get(timeout=SECONDS) == keys


def test_postponed_job_of_the_ledger_spends_no_attempt(stage: Stage) -> None:
    """Its dependency allows one attempt, which the job still has after it was postponed."""
    key, target = new_keys(2)
    task: Any = stage.app.tasks["delayed.kept"]
    with stage.adopted.consistent_session():
        stage.write(key)
        result = task.fire(key, target)
    stage.noted(f"{target}:done")
    assert stage.desk.client().hgetall(target) == {b"seen": b"1", b"primary": b"1"}
    assert postponements(stage, result.id) == 1
    wait_until(lambda: not stage.adopted.ledger.counts(), SECONDS, "the ledger has forgotten it")


@pytest.mark.parametrize("value", ["eventual", "Always", 1, ["always"]])
def test_unknown_value_is_refused(value: object) -> None:
    """The message names the three values."""
    with pytest.raises(ConfigurationError, match="one of always, sticky, delayed"):
        type("Odd", (ResilientTask,), {"data_consistency": value, "run": lambda _: None})


def test_misspelt_name_is_refused() -> None:
    """Python would ignore the misspelt attribute."""
    with pytest.raises(ConfigurationError, match="'data_consistency'"):
        type("Odd", (ResilientTask,), {"data_consistancy": "always", "run": lambda _: None})
