"""Fan-outs with a real worker: who gets which answer, when, and how it is marked."""

import asyncio
import os
import signal
from collections.abc import Iterator
from time import perf_counter
from typing import Any

import pytest

from resilience.levels import Level
from resilience.outcome import Outcome
from resilience.partial import PartialResponse
from resilience.tasks import FanOut, PendingResponse, part
from tests.integration.apps.parts import HOLD_SECONDS
from tests.integration.apps.stage import SECONDS, TOO_LATE, Stage, new_key, running_stage

SHORT = 1.0
LONG = 30.0
TOLERANCE_SECONDS = 0.5


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A worker of the app in apps/parts.py."""
    with running_stage(tmp_path_factory) as running:
        yield running


def get(pending: PendingResponse) -> PartialResponse:
    """Ask as a thread does."""
    return pending.get()


def get_async(pending: PendingResponse) -> PartialResponse:
    """Ask as a coroutine does."""
    return asyncio.run(pending.aget())


ASKING = pytest.mark.parametrize("ask", [get, get_async])


@ASKING
def test_complete_response_comes_at_once(stage: Stage, ask: Any) -> None:  # noqa: ANN401
    """All parts in: everything is there, nothing is marked, and nobody waits for the budget."""
    fan_out = FanOut(one=stage.s("echo", 1), two=part(stage.s("echo", {"a": [None]})))
    began = perf_counter()

    response = ask(fan_out.apply_async(budget=LONG))

    assert response == PartialResponse(data={"one": 1, "two": {"a": [None]}})
    assert not response.partial
    assert perf_counter() - began < LONG / 2


@ASKING
def test_response_is_partial_when_the_budget_is_spent(stage: Stage, ask: Any) -> None:  # noqa: ANN401
    """A part that hangs is missing, the others are there, and nobody waits for the part.

    The budget is 1 s, and the part hangs for 30 s if nobody cuts it.
    """
    key = new_key()
    fan_out = FanOut(slow=stage.s("hold", key, 1), fast=stage.s("echo", 2))
    began = perf_counter()

    pending = fan_out.apply_async(budget=SHORT)
    response = ask(pending)

    assert perf_counter() - began < HOLD_SECONDS / 2
    assert response.data == {"fast": 2}
    assert response.missing == ["slow"]
    assert response.reasons["slow"] in TOO_LATE
    assert response.level is Level.REDUCED
    assert response.partial
    stage.let_go(key)


def test_late_part_is_announced_and_changes_nothing(stage: Stage) -> None:
    """What comes after the end is counted and said; whoever asks again gets what the first got."""
    key = new_key()
    pending = FanOut(slow=stage.s("hold", key, 1)).apply_async(budget=SHORT)
    part_process = stage.await_start(key)
    os.kill(part_process, signal.SIGSTOP)  # else it would be cut in time, and say so
    first = pending.get()
    os.kill(part_process, signal.SIGCONT)

    late = stage.await_event("PartLate", pending.id)

    assert late == {"name": "PartLate", "id": pending.id, "part": "slow"}
    assert pending.get() == asyncio.run(pending.aget()) == first
    assert list(first.missing) == ["slow"]


def test_failed_part_is_missing_with_its_reason(stage: Stage) -> None:
    """An optional part that fails leaves the rest intact."""
    response = FanOut(bad=stage.s("fail", "refused"), good=stage.s("echo", 1)).apply_async(
        budget=LONG
    )

    assert response.get() == PartialResponse(
        data={"good": 1}, missing=["bad"], reasons={"bad": "ConnectionError"}
    )


@ASKING
def test_required_part_ends_the_response_when_it_fails(stage: Stage, ask: Any) -> None:  # noqa: ANN401
    """Nobody waits for the others: what is there is there, and the level is FAILED."""
    key = new_key()
    fan_out = FanOut(
        user=part(stage.s("fail", "refused"), required=True), slow=stage.s("hold", key, 1)
    )
    began = perf_counter()

    response = ask(fan_out.apply_async(budget=LONG))

    assert perf_counter() - began < LONG / 2
    assert response.level is Level.FAILED
    assert response.missing == ["user", "slow"]
    assert response.reasons == {"user": "ConnectionError", "slow": "DeadlineExceeded"}
    stage.let_go(key)


def test_level_is_that_of_the_worst_part(stage: Stage) -> None:
    """Degraded parts say how much, why, how old and from where."""
    fan_out = FanOut(
        full=stage.s("echo", 1), fallback=stage.s("degrade"), old=stage.s("stale_answer")
    )

    response = fan_out.apply_async(budget=LONG).get()

    assert response.data == {"full": 1, "fallback": "static", "old": "old"}
    assert response.level is Level.STATIC
    assert response.degraded == ["fallback", "old"]
    assert response.reasons == {"fallback": "ConnectionError", "old": "CircuitOpenError"}
    assert response.ages == {"old": 7.0}
    assert response.sources == {"fallback": "static"}


def switched(stage: Stage, key: str, **options: Any) -> FanOut:  # noqa: ANN401 - as of `part`
    """Return a fan-out of one part that answers until it is switched to failing."""
    return FanOut(metrics=part(stage.s("switch", key), **options), other=stage.s("echo", 1))


@pytest.mark.parametrize("required", [False, True])
def test_stale_answer_stands_in_for_a_part_that_fails(
    stage: Stage,
    required: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    """The last full answer to the same arguments comes, with its age; required parts included."""
    key = new_key()
    fan_out = switched(stage, key, stale=60.0, required=required)
    began = perf_counter()
    assert fan_out.apply_async(budget=LONG).get().data["metrics"] == 1
    stage.switch(key)

    response = fan_out.apply_async(budget=LONG).get()

    assert response.data == {"metrics": 1, "other": 1}
    assert response.level is Level.STALE
    assert response.degraded == ["metrics"]
    assert response.missing == []
    assert response.reasons == {"metrics": "ConnectionError"}
    assert 0 <= response.ages["metrics"] < perf_counter() - began + TOLERANCE_SECONDS


def test_stale_answer_stands_in_for_a_part_that_hangs(stage: Stage) -> None:
    """Missing at the deadline counts like failed."""
    key = new_key()
    fan_out = FanOut(slow=part(stage.s("hold", key, "fresh"), stale=60.0))
    stage.let_go(key)
    assert fan_out.apply_async(budget=LONG).get().data == {"slow": "fresh"}

    response = fan_out.apply_async(budget=SHORT).get()

    assert response.data == {"slow": "fresh"}
    assert response.reasons["slow"] in TOO_LATE
    assert response.level is Level.STALE
    stage.let_go(key)


def test_stale_answer_is_never_older_than_its_part_allows(stage: Stage) -> None:
    """What another fan-out remembers for longer does not stand in here."""
    key = new_key()
    assert switched(stage, key, stale=600.0).apply_async(budget=LONG).get().data["metrics"] == 1
    stage.switch(key)

    response = switched(stage, key, stale=60.0).apply_async(budget=LONG).get()

    assert response.missing == ["metrics"]


@pytest.mark.parametrize("task", ["degrade", "partial", "stale_answer"])
def test_only_full_answers_stand_in(stage: Stage, task: str) -> None:
    """What was degraded when it came is not remembered as an answer to fall back to."""
    extra = [new_key()] if task == "partial" else []
    fan_out = FanOut(one=part(stage.s(task, *extra), stale=60.0))
    pending = fan_out.apply_async(budget=LONG)

    assert pending.get().partial

    keys = stage.store.client().keys(f"*answer:part:{task}:*")
    assert keys == []


def test_nested_fan_outs_have_dotted_names(stage: Stage) -> None:
    """Parts of parts nest in the data and are named with dots where they are missing."""
    inner = FanOut(good=stage.s("echo", 1), bad=stage.s("fail", "inside"))
    outer = FanOut(inner=inner, deep=FanOut(deeper=inner), own=stage.s("echo", 2))

    response = outer.apply_async(budget=LONG).get()

    assert response.data == {"inner": {"good": 1}, "deep": {"deeper": {"good": 1}}, "own": 2}
    assert response.missing == ["inner.bad", "deep.deeper.bad"]
    assert set(response.reasons) == set(response.missing)


def test_part_may_be_a_partial_response_itself(stage: Stage) -> None:
    """A task that asked others inside passes on what was missing there."""
    fan_out = FanOut(inside=stage.s("ask_inside", LONG), own=stage.s("echo", 2))

    response = fan_out.apply_async(budget=LONG).get()

    assert response.data == {"inside": {"good": 1}, "own": 2}
    assert response.missing == ["inside.bad"]
    assert response.reasons == {"inside.bad": "ConnectionError"}


def test_task_returns_the_response_of_its_own_fan_out(stage: Stage) -> None:
    """A fan-out started and awaited inside a task crosses the result backend as a response."""
    response = stage.s("ask_inside", LONG).delay().get(timeout=SECONDS)

    assert response == PartialResponse(
        data={"good": 1}, missing=["bad"], reasons={"bad": "ConnectionError"}
    )


def test_stream_yields_parts_as_they_come(stage: Stage) -> None:
    """The fast part is there before the slow one ends; failed ones come last; all come once."""
    key = new_key()
    fan_out = FanOut(
        slow=stage.s("hold", key, 1), bad=stage.s("fail", "x"), fast=stage.s("echo", 2)
    )
    stream = fan_out.apply_async(budget=LONG).stream()

    first = next(stream)
    stage.let_go(key)
    rest = list(stream)

    assert (first.name, first.outcome) == ("fast", Outcome(value=2))
    assert [one.name for one in rest] == ["slow", "bad"]
    assert rest[1].outcome is None
    assert rest[1].reason == "ConnectionError"


def test_stream_ends_with_the_budget(stage: Stage) -> None:
    """What has not come by then is yielded as missing."""
    key = new_key()
    fan_out = FanOut(slow=part(stage.s("hold", key, 1), required=True), fast=stage.s("echo", 2))
    began = perf_counter()

    parts = list(fan_out.apply_async(budget=SHORT).stream())

    assert perf_counter() - began < HOLD_SECONDS / 2
    assert [(one.name, one.outcome is None, one.required) for one in parts] == [
        ("fast", False, False),
        ("slow", True, True),
    ]
    stage.let_go(key)


def test_cancelled_wait_leaves_the_fan_out_as_it_is(stage: Stage) -> None:
    """A client that hangs up costs the others nothing, on the same event loop or elsewhere."""
    key = new_key()

    async def ask_twice() -> tuple[PartialResponse, PartialResponse]:
        pending = FanOut(slow=stage.s("hold", key, 1)).apply_async(budget=LONG)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(pending.aget(), timeout=0.1)
        other = FanOut(fast=stage.s("echo", 2)).apply_async(budget=LONG)
        first = await other.aget()
        stage.let_go(key)
        return first, await pending.aget()

    assert asyncio.run(ask_twice()) == (
        PartialResponse(data={"fast": 2}),
        PartialResponse(data={"slow": 1}),
    )


@pytest.mark.parametrize("ask", [get, get_async, lambda pending: list(pending.stream())])
def test_end_is_announced_once_whoever_asks(stage: Stage, ask: Any) -> None:  # noqa: ANN401
    """However often and in whatever way the response is read, operators hear of it once."""
    pending = FanOut(good=stage.s("echo", 1), bad=stage.s("fail", "x")).apply_async(budget=LONG)
    ask(pending)
    ask(pending)
    pending.get()

    (event,) = stage.announced("FanOutFinished", pending.id)

    assert event["ended"] == "complete"
    assert event["missing"] == ["bad"]
    assert event["degraded"] == []


def test_results_of_parts_are_not_stored(stage: Stage) -> None:
    """Only the fan-in record holds what parts return; the result backend stays clean."""
    before = set(stage.desk.client().keys("celery-task-meta-*"))

    FanOut(good=stage.s("echo", 1), bad=stage.s("fail", "x")).apply_async(budget=LONG).get()

    assert set(stage.desk.client().keys("celery-task-meta-*")) == before


def test_declaration_can_be_applied_again(stage: Stage) -> None:
    """A module constant serves any number of requests, also at once."""
    fan_out = FanOut(one=stage.s("echo", 1))

    first, second = fan_out.apply_async(budget=LONG), fan_out.apply_async(budget=LONG)

    assert first.id != second.id
    assert first.get() == second.get() == PartialResponse(data={"one": 1})
