"""A job over its deadline does not run, wherever it waits, and everybody concerned hears of it."""

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter
from typing import Any

import pytest
from celery import chain, chord
from celery.exceptions import ChordError, TaskRevokedError, TimeLimitExceeded
from celery.result import AsyncResult

from resilience.errors import BudgetExceededError
from resilience.tasks import FanOut
from resilience.testing.stack import WorkerProcess
from resilience.testing.waiting import wait_until
from tests.integration.apps import budget_jobs as budgets
from tests.integration.apps.stage import SECONDS, Stage, new_key, running_stage

CONCURRENCY = 2
LONG = 60.0
SHORT = 0.5
LESS = 2.0
"""Enough for a busy machine to take the job before it is over."""
SPENT = r"was not begun: the budget of 0\.5 s was spent"
SOON = 10.0
"""Much sooner than what is held goes on by itself."""


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A worker of the app in apps/budget_jobs.py that fetches more jobs than it has processes."""
    with running_stage(
        tmp_path_factory, app_path=budgets.__name__, concurrency=CONCURRENCY
    ) as running:
        yield running


def now(stage: Stage) -> float:
    """Return fleet time."""
    seconds: float = stage.app.resilience.fleet_time()  # type: ignore[attr-defined]
    return seconds


def await_expiry(stage: Stage, since: float, budget: float = SHORT) -> None:
    """Wait until a budget that began at the latest at *since* is spent."""
    wait_until(lambda: now(stage) > since + budget, SECONDS, "the budget is spent")


def publish_late(stage: Stage, key: str, queue: str, **options: Any) -> AsyncResult[Any]:  # noqa: ANN401
    """Publish a job to *queue*, which nobody consumes from yet, and let its budget be spent."""
    sent = stage.s("tell").apply_async(kwargs={"key": key}, queue=queue, budget=SHORT, **options)
    await_expiry(stage, now(stage))
    return sent


def unacknowledged(stage: Stage) -> int:
    """Return how many messages the worker holds."""
    return stage.broker.held()


def await_acknowledged(stage: Stage, queue: str) -> None:
    """Wait until the broker has nothing left of *queue*."""
    wait_until(
        lambda: unacknowledged(stage) + stage.broker.kept(queue) == 0,
        SECONDS,
        "all messages are acknowledged",
    )


def occupy(stage: Stage) -> dict[str, int]:
    """Hold all processes of the worker; return each one's id by the key that lets it go."""
    keys = [new_key() for _ in range(CONCURRENCY)]
    for key in keys:
        stage.s("hold", key, key).apply_async()
    return {key: stage.await_start(key) for key in keys}


def await_taken(stage: Stage, number: int) -> None:
    """Wait until the worker holds *number* messages."""
    wait_until(lambda: unacknowledged(stage) == number, SECONDS, f"it holds {number}")


def test_job_that_expired_in_its_queue_is_dropped_and_said_to_be(stage: Stage) -> None:
    """State, result, event and the broker all tell that it is over, and it never ran."""
    queue = key = new_key()
    result = publish_late(stage, key, queue)

    stage.consume(queue)

    with pytest.raises(TaskRevokedError, match=SPENT):
        result.get(timeout=SECONDS)
    assert result.state == "REVOKED"
    event = stage.await_event("BudgetExceeded", result.id)
    assert (event["task"], event["total"]) == ("tell", SHORT)
    assert event["late"] > 0
    (hop,) = event["hops"]
    assert hop["queued"] >= SHORT
    assert hop["waited"] < hop["queued"]
    assert hop["ran"] == 0
    await_acknowledged(stage, queue)
    assert stage.noted(key) == []


def test_job_that_expires_while_it_waits_for_a_process_is_dropped(stage: Stage) -> None:
    """The worker looks again when a process is free."""
    held, key = occupy(stage), new_key()
    result = stage.s("tell").apply_async(kwargs={"key": key}, queue="beta", budget=LESS)
    sent = now(stage)
    await_taken(stage, CONCURRENCY + 1)
    taken = now(stage)
    await_expiry(stage, sent, LESS)

    for one in held:
        stage.let_go(one)

    with pytest.raises(TaskRevokedError, match="was not begun: the budget of 2 s was spent"):
        result.get(timeout=SECONDS)
    (hop,) = stage.await_event("BudgetExceeded", result.id)["hops"]
    assert hop["waited"] >= sent + LESS - taken
    assert hop["ran"] == 0
    await_acknowledged(stage, "beta")
    assert stage.noted(key) == []


def test_job_that_expires_in_the_pools_pipe_is_found_by_the_process(stage: Stage) -> None:
    """A process that was stopped has the job already when the time is up, and does not begin it."""
    held, key = occupy(stage), new_key()
    (free, pid), (other, _) = held.items()
    stage.let_go(free)
    await_taken(stage, CONCURRENCY - 1)
    os.kill(pid, signal.SIGSTOP)
    try:
        result = stage.s("tell").apply_async(kwargs={"key": key}, queue="beta", budget=LESS)
        sent = now(stage)
        await_taken(stage, CONCURRENCY)
        await_expiry(stage, sent, LESS)
    finally:
        os.kill(pid, signal.SIGCONT)
        stage.let_go(other)

    with pytest.raises(BudgetExceededError, match="was not begun: the budget of 2 s was spent"):
        result.get(timeout=SECONDS)
    assert result.state == "FAILURE"
    assert stage.await_event("BudgetExceeded", result.id)["hops"][0]["waited"] > 0
    assert stage.noted(key) == []


def test_chord_fails_when_a_member_is_dropped(stage: Stage) -> None:
    """Its body is not waited for."""
    queue = key = new_key()
    told = stage.app.tasks["tell"].s(key=key)
    late = told.clone().set(queue=queue, budget=SHORT)
    result = chord([late, told], told).apply_async()
    await_expiry(stage, now(stage))

    stage.consume(queue)

    error = result.get(timeout=SECONDS, propagate=False)
    assert isinstance(error, ChordError)
    assert "was spent" in str(error)
    assert len(stage.noted(key)) == 1


def test_chord_fails_when_the_chain_of_a_member_is_cut_short(stage: Stage) -> None:
    """The end of the chain will never come; the chord hears so from the step that was dropped."""
    queue = key = new_key()
    told = stage.app.tasks["tell"].s(key=key)
    late = told.clone().set(queue=queue, budget=SHORT)
    result = chord([chain(late, told, told), told], told).apply_async()
    await_expiry(stage, now(stage))

    stage.consume(queue)

    error = result.get(timeout=SECONDS, propagate=False)
    assert isinstance(error, ChordError)
    assert "was spent" in str(error)


def test_chain_ends_when_one_of_its_steps_is_dropped(stage: Stage) -> None:
    """Who waits for the last step hears that it will not come."""
    queue = key = new_key()
    told = stage.app.tasks["tell"].s(key=key)
    result = chain(told.clone().set(queue=queue), told, told).apply_async(budget=SHORT)
    await_expiry(stage, now(stage))

    stage.consume(queue)

    error = result.get(timeout=SECONDS, propagate=False)
    assert isinstance(error, TaskRevokedError)
    assert "was spent" in str(error)


def test_errback_of_a_dropped_job_hears_of_it(stage: Stage) -> None:
    """With no budget of its own, or it would be dropped as well."""
    queue, key = new_key(), new_key()
    told = stage.app.tasks["tell"].s(key=key)
    told.clone().set(queue=queue).on_error(told).apply_async(budget=SHORT)
    await_expiry(stage, now(stage))

    stage.consume(queue)

    assert stage.await_note(key)["header"] is None


def test_part_that_is_dropped_is_missing_at_once(stage: Stage) -> None:
    """A fan-out does not wait for its deadline; a part's own smaller budget holds."""
    queue = key = new_key()
    told = stage.app.tasks["tell"].s(key=key)
    pending = FanOut(late=told.clone().set(queue=queue, budget=SHORT), good=told).apply_async(
        budget=LONG
    )
    began = perf_counter()
    await_expiry(stage, now(stage))

    stage.consume(queue)

    response = pending.get()
    assert perf_counter() - began < LONG / 2
    assert (response.data, response.reasons) == (
        {"good": "told"},
        {"late": "BudgetExceededError"},
    )


def test_process_that_hears_no_alarm_is_killed_soon_after_the_deadline(stage: Stage) -> None:
    """The pool's hard limit is what remains of the budget and a second."""
    key = new_key()
    began = perf_counter()

    result = stage.s("hold_deaf", key).apply_async(budget=SHORT)

    with pytest.raises(TimeLimitExceeded):
        result.get(timeout=SECONDS)
    assert perf_counter() - began < SOON


def test_time_limit_of_a_task_holds_within_a_longer_budget(stage: Stage) -> None:
    """A budget only shortens."""
    result = stage.s("overrun", new_key()).apply_async(budget=LONG)

    with pytest.raises(TimeLimitExceeded, match=r"\(1,?\)"):
        result.get(timeout=SECONDS)


def test_time_limit_of_a_worker_holds_within_a_longer_budget(stage: Stage, tmp_path: Path) -> None:
    """Also one that only its command line says."""
    queue, key = new_key(), new_key()
    command = [
        sys.executable,
        "-m",
        "celery",
        "-A",
        budgets.__name__,
        "worker",
        "-Q",
        queue,
        "-c",
        "1",
    ]
    worker = WorkerProcess(
        [*command, "--time-limit", "1", "--without-mingle", "--without-gossip"],
        hostname=f"{key}@localhost",
        env=stage.env,
        log_path=tmp_path / "worker.log",
    )
    worker.start()
    try:
        result = stage.s("hold_deaf", key).apply_async(queue=queue, budget=LONG)
        with pytest.raises(TimeLimitExceeded):
            result.get(timeout=SOON)
        await_taken(stage, 0)
    finally:
        worker.kill()


def test_worker_serves_the_next_job_after_all_that(stage: Stage) -> None:
    """What is fresh runs."""
    key = new_key()

    assert stage.s("tell").apply_async(kwargs={"key": key}, budget=LONG).get(timeout=SECONDS)
    await_taken(stage, 0)
