"""Budgets of time: what a call gets of one, and what becomes of a call that takes more."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from celery.exceptions import Ignore, Reject, Retry

from resilience import BudgetExceededError, Level, Outcome, TimeoutBudget, current_budget
from resilience.errors import BUGS, UNREADABLE
from resilience.events import AnswerDegraded, Event
from tests.unit.budgets import HANG_SECONDS, Run, hang, left_here, spent
from tests.unit.calling import raising
from tests.unit.stopwatch import elapsed


@pytest.fixture(autouse=True)
def _no_budget_is_left_behind() -> Iterator[None]:
    """Whatever a test does, no code after it runs under its budget."""
    yield
    assert current_budget() is None


def endings(budget: TimeoutBudget) -> list[tuple[str, str]]:
    """Return which calls ended how, in order."""
    return [(one.what, one.ended) for one in budget.spent]


def test_call_returns_what_the_function_returns(spend: Run) -> None:
    """Arguments go in and the value comes out as they are."""
    budget = TimeoutBudget(5)

    assert spend(budget, dict, [("a", 1)], function=2, self=3) == {"a": 1, "function": 2, "self": 3}
    assert endings(budget) == [("dict", "ok")]
    assert not budget.reasons


def test_call_raises_what_the_function_raises(spend: Run) -> None:
    """A required call's very error object comes through."""
    budget, error = TimeoutBudget(5), OSError("gone")

    with pytest.raises(OSError, match="gone") as caught:
        spend(budget, raising(error))

    assert caught.value is error
    assert [one.ended for one in budget.spent] == ["failed"]
    assert not budget.reasons


@pytest.mark.parametrize(
    ("total", "options"),
    [
        pytest.param(2.0, {"allocation": 0.1}, id="allocation"),
        pytest.param(2.0, {"seconds": 0.2}, id="seconds"),
        pytest.param(0.2, {}, id="all that remains"),
        pytest.param(0.2, {"seconds": 5}, id="no more than remains"),
    ],
)
def test_slow_call_is_cut_at_the_end_of_its_share(
    spend: Run, total: float, options: dict[str, float]
) -> None:
    """A call gets its share and no more; the error tells what ran, how long, and what was left."""
    budget = TimeoutBudget(total)

    def cut() -> None:
        with pytest.raises(BudgetExceededError) as caught:
            spend(budget, hang, **options)
        error = caught.value
        assert (error.what, error.total) == ("hang", total)
        assert 0.15 < error.ran < 1.5
        assert total - 1.5 < error.left < total - 0.15

    assert 0.15 < elapsed(cut) < 2
    assert endings(budget) == [("hang", "cut")]
    assert 0.15 < budget.spent[0].seconds < 1.5


def test_slow_call_cannot_take_the_share_of_the_next(spend: Run) -> None:
    """Each of three calls has what it was promised, however long those before it would take."""
    budget = TimeoutBudget(3)

    spend(budget, hang, allocation=0.1, default=None)
    second = spend(budget, left_here, allocation=0.3)
    third = spend(budget, left_here)

    assert 0.8 < second <= 0.9
    assert 1.5 < third <= 2.7


def test_fast_call_leaves_its_share_to_those_after_it(spend: Run) -> None:
    """What is not used is there for the call that takes all that remains."""
    budget = TimeoutBudget(10)

    spend(budget, str, allocation=0.9)

    assert spend(budget, left_here) > 5


def test_code_inside_a_call_runs_under_the_calls_share(spend: Run) -> None:
    """What a call calls or publishes can only have what the call has."""
    budget = TimeoutBudget(10)

    with budget:
        assert 1 < spend(budget, left_here, allocation=0.25) <= 2.5
        assert current_budget() is budget


def test_call_is_not_begun_when_nothing_is_left(spend: Run) -> None:
    """A spent budget calls nothing; the error says that it did not."""
    called: list[int] = []
    budget = spent()

    with pytest.raises(BudgetExceededError, match="append was not begun: the budget of 1e-06 s"):
        spend(budget, called.append, 1)
    assert spend(budget, called.append, 1, default="default") == "default"

    assert not called
    assert [one.ended for one in budget.spent] == ["not begun"] * 2


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        pytest.param(raising(ConnectionError("gone")), "ConnectionError", id="failed"),
        pytest.param(raising(ExceptionGroup("", [OSError()])), "ExceptionGroup", id="group"),
        pytest.param(hang, "BudgetExceededError", id="cut"),
    ],
)
def test_default_stands_in_for_a_call_that_does_not_answer(
    spend: Run,
    function: Callable[..., Any],
    reason: str,
) -> None:
    """A call with a default, even None, never fails; why the default stands in is noted."""
    budget = TimeoutBudget(2)

    assert spend(budget, function, seconds=0.05, default=None) is None

    assert list(budget.reasons.values()) == [reason]


@pytest.mark.parametrize("kind", BUGS)
def test_default_hides_no_bug(spend: Run, kind: type[Exception]) -> None:
    """A bug is not an outage, alone or in a group with others."""
    for error in (kind("broken"), ExceptionGroup("", [OSError(), kind("broken")])):
        budget = TimeoutBudget(5)

        with pytest.raises(type(error)) as caught:
            spend(budget, raising(error), default=None)

        assert caught.value is error
        assert not budget.reasons


@pytest.mark.parametrize("kind", UNREADABLE)
def test_default_stands_in_for_an_unreadable_answer_and_says_so(
    spend: Run, kind: type[Exception], caplog: pytest.LogCaptureFixture
) -> None:
    """Behind such an error a bug may hide, so it is logged at ERROR with its traceback."""
    error = kind("odd")

    assert spend(TimeoutBudget(5), raising(error), default=7) == 7

    record, announced = caplog.records
    assert record.levelname == "ERROR"
    assert record.exc_info is not None
    assert record.exc_info[1] is error
    assert "event=AnswerDegraded " in announced.getMessage()


def test_default_hides_no_wrong_arguments() -> None:
    """They are a bug, whereas a `TypeError` in the body may come of an answer."""
    with pytest.raises(TypeError):
        TimeoutBudget(5).run(abs, default=None)
    with pytest.raises(TypeError):
        TimeoutBudget(5).run(raising, default=None)


@pytest.mark.parametrize(
    "error", [Retry(), Ignore(), Reject(), ExceptionGroup("", [Retry()]), KeyboardInterrupt()]
)
def test_default_hides_nothing_that_steers_a_job(spend: Run, error: BaseException) -> None:
    """Celery's own exceptions, and a user's Ctrl-C, are no failures of the call."""
    with pytest.raises(type(error)) as caught:
        spend(TimeoutBudget(5), raising(error), default=None)

    assert caught.value is error


def test_answer_that_is_degraded_already_is_noted(spend: Run) -> None:
    """A call that answers with a degraded outcome is handed on as it is, and makes a reason."""
    budget = TimeoutBudget(5)
    old = Outcome(value=1, level=Level.STALE, reason="CircuitOpenError")

    def ask() -> Outcome[int]:
        return old

    assert spend(budget, ask) is old
    assert spend(budget, lambda: Outcome(value=2)).value == 2
    assert list(budget.reasons.values()) == ["CircuitOpenError"]


def test_outcome_is_full_if_every_part_is(spend: Run) -> None:
    """Nothing is degraded when every call answered."""
    budget = TimeoutBudget(5)

    assert budget.outcome(spend(budget, int, 7)) == Outcome(value=7)


def test_outcome_says_which_part_is_not_what_it_should_be(spend: Run) -> None:
    """An answer with a default in it carries a level, the part and the reason."""
    budget = TimeoutBudget(5)

    def ask() -> None:
        raise ConnectionError

    value = [spend(budget, int, 7), spend(budget, ask, default=0)]

    outcome = budget.outcome(value, level=Level.STATIC)
    assert (outcome.value, outcome.level, outcome.reason) == ([7, 0], 3, "ConnectionError")
    assert str(outcome.dependency).endswith("ask")
    assert budget.outcome(value).level is Level.REDUCED


def test_default_is_announced_to_those_who_hear_of_the_job(
    spend: Run, caplog: pytest.LogCaptureFixture
) -> None:
    """Once, to the listeners of the outer budget, which is a job's; without one, to the log."""
    heard: list[Event] = []
    with TimeoutBudget(5) as outer:
        outer.listeners = [heard.append]
        spend(TimeoutBudget(5), raising(ConnectionError("gone")), default=0)
    [event] = heard
    assert isinstance(event, AnswerDegraded)
    assert (event.level, event.reason, event.error) == (Level.REDUCED, "ConnectionError", "gone")
    assert (event.source, event.dependency) == ("default", "")
    assert event.call.endswith("failing")
    assert not caplog.messages

    spend(TimeoutBudget(5), raising(ConnectionError("gone")), default=0)
    assert len(heard) == len(caplog.messages) == 1
    assert "event=AnswerDegraded" in caplog.text


def test_call_of_a_coroutine_function_is_refused() -> None:
    """Nobody gets a coroutine that no limit sees the end of; a default does not hide it."""
    with pytest.raises(TypeError, match="sleep called a coroutine function"):
        TimeoutBudget(5).run(asyncio.sleep, 0, default=None)


def test_calls_that_run_at_once_have_shares_of_their_own() -> None:
    """Of coroutines under one budget, each is cut, fails or answers by itself."""

    async def sleep(seconds: float) -> float:
        await asyncio.sleep(seconds)
        return left_here()

    async def fail() -> None:
        raise ConnectionError

    async def together() -> tuple[Any, ...]:
        async with TimeoutBudget(5) as budget:
            found = await asyncio.gather(
                budget.arun(sleep, HANG_SECONDS, seconds=0.1, default="cut"),
                budget.arun(sleep, 0.2, allocation=0.4),
                budget.arun(fail, default="failed"),
                budget.arun(sleep, 0.2),
            )
            assert current_budget() is budget
        assert sorted(one.ended for one in budget.spent) == ["cut", "failed", "ok", "ok"]
        return found

    cut, second, failed, last = asyncio.run(together())

    assert (cut, failed) == ("cut", "failed")
    assert second <= 2 - 0.2
    assert 2 < last < 5


def test_cancelled_call_is_cancelled() -> None:
    """Who cancels a call gets neither its default nor the budget's error."""

    async def cancelled() -> None:
        began = asyncio.Event()

        async def wait() -> None:
            began.set()
            await asyncio.sleep(HANG_SECONDS)

        task = asyncio.create_task(TimeoutBudget(5).arun(wait, default=None))
        await began.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancelled())


def test_calls_in_several_threads_share_a_budget() -> None:
    """Threads are cut as the main one is, and every call is told of."""
    budget, go_on = TimeoutBudget(20), threading.Event()

    def wait() -> None:
        go_on.wait(HANG_SECONDS)

    with ThreadPoolExecutor(4) as pool:
        try:
            cut = [pool.submit(budget.run, wait, seconds=0.1, default="cut") for _ in range(2)]
            good = [pool.submit(budget.run, left_here, allocation=0.4) for _ in range(2)]
            assert [one.result(5) for one in cut] == ["cut", "cut"]
            assert all(4 < one.result(5) <= 8 for one in good)
        finally:
            go_on.set()

    assert sorted(one.ended for one in budget.spent) == ["cut", "cut", "ok", "ok"]


def test_budget_says_what_is_left() -> None:
    """Who prints a budget sees what is left of how much."""
    assert repr(spent(0.001)) == "<TimeoutBudget: 0 s of 0.001 s left>"


def test_budget_is_begun_within_a_call_of_another() -> None:
    """A function that has a budget of its own may be called under one."""
    with TimeoutBudget(5.0) as whole:
        whole.run(lambda: TimeoutBudget(1.0).remaining())
