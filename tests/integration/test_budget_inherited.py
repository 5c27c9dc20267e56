"""What a job publishes has what remains of the job's time, and never more."""

import gc
from collections.abc import Iterator
from typing import Any

import pytest
from celery import chain
from celery._state import get_current_app

from resilience.budget import TimeoutBudget
from resilience.tasks.envelope import BUDGET_HEADER
from resilience.testing.waiting import wait_until
from tests.integration.apps import budget_jobs as budgets
from tests.integration.apps.budget_jobs import BLOCK_SECONDS, canvas
from tests.integration.apps.stage import SECONDS, Stage, new_key, running_stage

BUDGET = 60.0
OWN = 3.0
CLOCK_SECONDS = 0.05
"""Between two readings of the fleet's clock, by which what remains is computed."""
KINDS = {
    "task": 1,
    "task without a dependency": 1,
    "chain": 3,
    "chain through a plain task": 3,
    "group": 2,
    "chord": 3,
    "chord of plain tasks": 3,
    "chain with a chord": 4,
    "link": 2,
    "errback": 2,
    "chord's errback": 2,
    "retry": 2,
    "autoretry": 2,
    "plain task's retry": 2,
    "replace": 2,
    "replace by a chain": 4,
    "replace by a chord": 4,
    "fan-out": 2,
    "task by name": 1,
    "chain of a plain publisher": 2,
}
"""How many jobs of each canvas tell what they know."""

PLAIN = ("tell_plain", "tell_and_retry_plainly")
"""Tasks of Celery's own class: they hand the budget on and do not keep it."""


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A worker of the app in apps/budget_jobs.py."""
    with running_stage(tmp_path_factory, app_path=budgets.__name__) as running:
        before = get_current_app()
        running.app.set_current()  # type: ignore[attr-defined] # as a client's own app is
        yield running
        before.set_current()
        gc.collect()  # results that nobody asked for close their subscriptions, and need the server


def told(stage: Stage, key: str, number: int) -> list[dict[str, Any]]:
    """Return what *number* jobs told of themselves, once they have."""
    what = f"{number} jobs tell of their budget"
    return wait_until(
        lambda: found if len(found := stage.noted(key)) >= number else None, SECONDS, what
    )


def on_the_wire(stage: Stage, queue: str) -> dict[str, Any]:
    """Return the headers of the one message in *queue*."""
    (headers,) = stage.broker.headers(queue)
    return headers


@pytest.mark.parametrize("kind", KINDS)
def test_everything_a_budgeted_canvas_runs_ends_with_the_budget(stage: Stage, kind: str) -> None:
    """Steps, callbacks, errbacks, bodies, members, retries, replacements and parts have it."""
    key = new_key()
    before = stage.app.resilience.fleet_time()

    canvas(stage.app.tasks, kind, key).apply_async(budget=BUDGET)

    for one in told(stage, key, KINDS[kind]):
        assert one["header"] is not None, one
        assert one["header"]["deadline"] <= before + BUDGET + CLOCK_SECONDS + 1.0
        assert one["header"]["total"] <= BUDGET
        assert one["task"] in PLAIN or 0 < one["left"] <= BUDGET


@pytest.mark.parametrize("kind", KINDS)
def test_everything_a_job_publishes_ends_when_the_job_must(stage: Stage, kind: str) -> None:
    """Nobody has more time than the job that published it, however many are between."""
    key = new_key()
    before = stage.app.resilience.fleet_time()

    stage.s("publish", kind, key).apply_async(budget=BUDGET)

    after = stage.app.resilience.fleet_time()
    for one in told(stage, key, KINDS[kind]):
        header = one["header"]
        if kind != "fan-out":
            assert header["total"] == BUDGET
            assert header["deadline"] >= before + BUDGET - CLOCK_SECONDS
        assert header["deadline"] <= after + BUDGET + CLOCK_SECONDS


@pytest.mark.parametrize(
    ("kind", "number", "expected"),
    [
        pytest.param("own smaller budget", 1, OWN, id="smaller"),
        pytest.param("own larger budget", 1, BUDGET, id="larger"),
        pytest.param("later in a chain", 2, BUDGET, id="larger-in-a-chain"),
    ],
)
def test_own_budget_of_a_published_job_only_shortens(
    stage: Stage, kind: str, number: int, expected: float
) -> None:
    """`sig.set(budget=…)` begins when the job is published, and ends with the publisher's."""
    key = new_key()

    stage.s("publish", kind, key).apply_async(budget=BUDGET)

    one = told(stage, key, number)[-1]
    assert one["header"]["total"] == expected
    assert 0 < one["left"] <= expected


@pytest.mark.parametrize(
    ("task", "kind", "number"),
    [
        pytest.param("publish_freely", [], 1, id="apply-async"),
        pytest.param("publish", ["none"], 1, id="signature"),
        pytest.param("publish", ["none later in a chain"], 2, id="in-a-chain"),
    ],
)
def test_none_opts_out_of_the_publishers_budget(
    stage: Stage, task: str, kind: list[str], number: int
) -> None:
    """A job that must not be dropped, a mail to be sent, says `budget=None`."""
    key = new_key()

    stage.s(task, *kind, key).apply_async(budget=BUDGET)

    one = told(stage, key, number)[-1]
    assert one["header"] is None
    assert one["left"] is None


def test_block_shortens_what_is_published_in_it(stage: Stage) -> None:
    """A `TimeoutBudget` inside a job holds for what is published there."""
    key = new_key()

    stage.s("publish_in_block", "task", key).set(queue="beta").apply_async(budget=BUDGET)

    (one,) = told(stage, key, 1)
    assert one["header"]["total"] == BLOCK_SECONDS


@pytest.mark.parametrize(
    "task", [pytest.param("tell", id="ours"), pytest.param("tell_plain", id="celerys-own-class")]
)
def test_block_of_a_client_holds_for_what_it_publishes(stage: Stage, task: str) -> None:
    """A web handler's budget travels with its jobs, whatever their class."""
    queue = new_key()
    with TimeoutBudget(BUDGET):
        stage.app.tasks[task].apply_async(kwargs={"key": queue}, queue=queue)

    assert on_the_wire(stage, queue)[BUDGET_HEADER]["total"] == BUDGET


def test_job_without_a_budget_is_as_celery_makes_it(stage: Stage) -> None:
    """No header on the wire, no time limit, nothing current in the body."""
    queue, key = new_key(), new_key()
    stage.s("tell").apply_async(kwargs={"key": key}, queue=queue)
    headers = on_the_wire(stage, queue)
    assert not [name for name in headers if name.startswith("resilience")]
    assert headers["timelimit"] == [None, None]

    stage.s("tell").apply_async(kwargs={"key": key})

    (one,) = told(stage, key, 1)
    assert (one["header"], one["left"], one["timelimit"]) == (None, None, [None, None])


def test_retry_out_of_a_block_has_the_time_of_the_job(stage: Stage) -> None:
    """The block's budget is for a part of one run; the next run begins again."""
    key = new_key()

    result = stage.s("tell_and_retry", key, 2 * BLOCK_SECONDS).apply_async(kwargs={"block": True})

    assert result.get(timeout=SECONDS) == "told"
    assert [one["header"] for one in told(stage, key, 2)] == [None, None]


def test_retry_that_cannot_begin_in_time_is_refused_at_once(stage: Stage) -> None:
    """The error that led to it comes instead, and an event says why."""
    key = new_key()

    result = stage.s("tell_and_retry", key, 2 * BUDGET).apply_async(budget=BUDGET)

    with pytest.raises(ConnectionError, match="no service"):
        result.get(timeout=SECONDS)
    event = stage.await_event("BudgetExceeded", result.id)
    assert event["late"] < 0
    assert len(told(stage, key, 1)) == 1


@pytest.mark.parametrize(
    ("seconds", "runs"),
    [pytest.param(0.0, 2, id="fits"), pytest.param(2 * BUDGET, 1, id="does-not")],
)
def test_retry_at_a_time_of_day_fits_or_is_refused(stage: Stage, seconds: float, runs: int) -> None:
    """Celery takes an `eta` without a zone; so does a job with a budget."""
    key = new_key()

    result = stage.s("tell_and_retry_at", key, seconds).apply_async(budget=BUDGET)

    result.get(timeout=SECONDS, propagate=False)
    assert result.state == ("SUCCESS" if runs == 2 else "FAILURE")
    assert type(result.result).__name__ == ("str" if runs == 2 else "ConnectionError")
    assert len(told(stage, key, runs)) == runs


def test_outcome_says_where_the_time_went_job_by_job(stage: Stage) -> None:
    """What was queued, waited for and run adds up to what the caller waited, but for the result."""
    key = new_key()
    began = stage.app.resilience.fleet_time()
    result = chain(stage.s("hold", key, 1), stage.s("plain"), stage.s("answer")).apply_async(
        budget=BUDGET
    )
    stage.await_start(key)
    started = stage.app.resilience.fleet_time()
    wait_until(
        lambda: stage.app.resilience.fleet_time() > started + OWN / 6, SECONDS, "it ran a while"
    )
    released = stage.app.resilience.fleet_time()
    stage.let_go(key)

    hops = result.get(timeout=SECONDS).hops

    took = stage.app.resilience.fleet_time() - began
    assert [hop.task for hop in hops] == ["hold", "plain", "answer"]
    assert hops[0].ran >= released - started
    spent = sum(hop.queued + hop.waited + hop.ran for hop in hops)
    assert released - began <= spent <= took + 2 * CLOCK_SECONDS
