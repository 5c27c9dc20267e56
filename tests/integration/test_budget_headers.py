"""What another publisher writes into the budget's header costs no job and no worker."""

import math
from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery
from kombu import Queue

from resilience.tasks.envelope import BUDGET_HEADER, RECEIVED_HEADER
from tests.integration.apps import budget_jobs as budgets
from tests.integration.apps.canvas_stage import running_app
from tests.integration.apps.stage import SECONDS, Stage, new_key, running_stage

HOPS_MAX = 16

LONG = 60.0
HUGE = 1e308
GOOD: dict[str, Any] = {"deadline": 4e9, "total": LONG, "sent": 1e9, "hops": []}
HOP = ["before", 0.1, 0.1, 0.1]
MALFORMED = {
    "text": "soon",
    "number": 7,
    "list": [1, 2],
    "empty": {},
    "text-deadline": {**GOOD, "deadline": "soon"},
    "no-number": {**GOOD, "deadline": math.nan},
    "endless": {**GOOD, "deadline": math.inf},
    "long-ago": {**GOOD, "deadline": -1.0},
    "bool": {**GOOD, "deadline": True},
    "none": {**GOOD, "deadline": None},
    "huge-integer": {**GOOD, "deadline": 10**400},
    "no-number-total": {**GOOD, "total": math.nan},
    "negative-total": {**GOOD, "total": -5},
    "zero-total": {**GOOD, "total": 0},
    "huge-total": {**GOOD, "total": HUGE},
    "text-total": {**GOOD, "total": "5"},
    "huge-negative-sent": {**GOOD, "sent": -HUGE},
    "no-number-sent": {**GOOD, "sent": math.nan},
    "number-of-hops": {**GOOD, "hops": 10**9},
    "text-hops": {**GOOD, "hops": "many" * 10_000},
    "mapping-of-hops": {**GOOD, "hops": {"a": 1}},
    "short-hop": {**GOOD, "hops": [["task", 1]]},
    "long-hop": {**GOOD, "hops": [[*HOP, 1, 1]]},
    "negative-hop": {**GOOD, "hops": [["task", -1.0, 1.0, 1.0]]},
    "text-in-a-hop": {**GOOD, "hops": [["task", "1", "1", "1"]]},
    "nameless-hop": {**GOOD, "hops": [[{"a": []}, 1, 1, 1]]},
}
ODD = {
    "huge-deadline": {**GOOD, "deadline": HUGE},
    "huge-sent": {**GOOD, "sent": HUGE},
    "integers": {**GOOD, "deadline": 4 * 10**9, "total": 60, "sent": 1},
    "field-of-a-later-release": {**GOOD, "colour": "green"},
    "many-hops": {**GOOD, "hops": [HOP] * 10_000},
}
UNSENDABLE = {
    "no-number",
    "endless",
    "huge-integer",
    "no-number-total",
    "no-number-sent",
    "many-hops",
}
"""Headers of AMQP hold no such numbers, and RabbitMQ takes at most 128 KiB of headers."""


def params(said: dict[str, Any]) -> list[Any]:
    """Return the values of *said* as parameters of a test."""
    only = pytest.mark.redis_broker("RabbitMQ takes no message with such a header")
    return [
        pytest.param(value, id=name, marks=[only] if name in UNSENDABLE else [])
        for name, value in said.items()
    ]


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A worker of the app in apps/budget_jobs.py, and of no other test."""
    with running_stage(tmp_path_factory, app_path=budgets.__name__, concurrency=1) as running:
        yield running


@pytest.fixture(scope="module")
def publisher(stage: Stage) -> Iterator[Celery[Any]]:
    """An app that knows nothing of ours."""
    with Celery("another", broker=stage.broker.url, set_as_current=False) as app:
        app.conf.task_queues = [Queue("alpha", no_declare=True)]
        yield app


def run(stage: Stage, publisher: Celery[Any], headers: dict[str, Any]) -> dict[str, Any]:
    """Let the worker run a job with *headers*, and return what it told."""
    key = new_key()
    publisher.send_task("tell", kwargs={"key": key}, queue="alpha", headers=headers)
    told: dict[str, Any] = stage.await_note(key)
    return told


@pytest.mark.parametrize("said", params(MALFORMED))
def test_malformed_header_is_no_budget(stage: Stage, publisher: Celery[Any], said: object) -> None:
    """The job runs as if nobody had said anything, and hands nothing on."""
    told = run(stage, publisher, {BUDGET_HEADER: said, RECEIVED_HEADER: said})

    assert (told["header"], told["left"]) == (None, None)


@pytest.mark.parametrize("said", params(ODD))
def test_odd_header_is_taken_for_what_it_says(
    stage: Stage, publisher: Celery[Any], said: dict[str, Any]
) -> None:
    """Nobody has more time than the total, nor a longer history than the last hops."""
    told = run(stage, publisher, {BUDGET_HEADER: said, RECEIVED_HEADER: "now"})

    assert 0 < told["left"] <= LONG


def test_history_of_a_job_does_not_grow_for_ever(stage: Stage, publisher: Celery[Any]) -> None:
    """The last hops travel on."""
    key = new_key()
    headers = {BUDGET_HEADER: {**GOOD, "hops": [HOP] * 1_000}}

    publisher.send_task("publish", ["task", key], queue="celery", headers=headers)

    hops = stage.await_note(key)["header"]["hops"]
    assert [name for name, *_ in hops] == ["before"] * (HOPS_MAX - 1) + ["publish"]


def test_worker_warns_of_malformed_headers_once(stage: Stage, publisher: Celery[Any]) -> None:
    """Who floods a queue with them does not flood the log."""
    for _ in range(3):
        run(stage, publisher, {BUDGET_HEADER: "soon"})

    worker = stage.worker
    assert worker is not None
    assert worker.log.count("ignored a malformed header") == 1
    assert "Traceback" not in worker.log


def test_app_that_was_never_adopted_ignores_the_header(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Without a declaration `ResilientTask` is nothing but a Celery task."""
    with running_app(tmp_path_factory, adopted=False) as app:
        for said in (GOOD, {**GOOD, "deadline": 1.0}, "soon"):
            result = app.send_task("add", [1, 2], headers={BUDGET_HEADER: said})

            assert result.get(timeout=SECONDS) == 3, said
