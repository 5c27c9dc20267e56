"""The way of a call through its policies: what comes out of it."""

import asyncio
import threading
from typing import NoReturn

import pytest

from resilience import (
    AllFallbacksFailedError,
    AttemptTimeoutError,
    Dependency,
    Level,
    Outcome,
    Pipeline,
    RejectedError,
    fallback,
)
from resilience.events import AnswerDegraded
from resilience.fallback import Step
from resilience.store import Answers
from tests.unit.calling import Listening, Run, raising, run_async, run_sync

USERS = Dependency("users")
HASTY = Dependency("users", timeout=0.1)
LATE_SECONDS = 10.0


def add(*numbers: int, **named: int) -> int:
    """Return the sum of all arguments."""
    return sum(numbers) + sum(named.values())


def test_call_without_fallbacks_returns_the_plain_value(run: Run, no_answers: Answers) -> None:
    """A pipeline that cannot degrade returns what the function returns."""
    assert run(Pipeline("add", USERS, no_answers), add, 1, 2, three=3) == 6


def test_call_without_fallbacks_raises_what_the_function_raises(
    run: Run, no_answers: Answers
) -> None:
    """The very error object comes through."""
    error = OSError("gone")

    with pytest.raises(OSError, match="gone") as caught:
        run(Pipeline("add", USERS, no_answers), raising(error))

    assert caught.value is error


def test_call_with_fallbacks_returns_a_full_outcome(run: Run, no_answers: Answers) -> None:
    """A good answer says that it is one, and nobody hears of it."""
    listening = Listening()
    pipeline = Pipeline(
        "add", USERS, no_answers, fallbacks=[fallback.static(0)], listeners=[listening]
    )

    assert run(pipeline, add, 1, 2, three=3) == Outcome(value=6, dependency="users")
    assert not listening.heard


def test_call_hands_on_every_keyword(run: Run, no_answers: Answers) -> None:
    """No name of an argument is taken by the pipeline itself."""
    pipeline = Pipeline("add", USERS, no_answers, fallbacks=[fallback.static(0)])

    assert run(pipeline, add, function=1, name=2, args=3, kwargs=4, call=5).value == 15


def test_call_keeps_an_outcome_that_the_function_returns(run: Run, no_answers: Answers) -> None:
    """A function that degraded by itself is believed."""
    made = Outcome(value=1, level=Level.REDUCED, reason="OSError", source="own")
    pipeline = Pipeline("add", USERS, no_answers, fallbacks=[fallback.static(0)])

    assert run(pipeline, lambda: made) is made


def test_first_step_with_an_answer_ends_the_chain(run: Run, no_answers: Answers) -> None:
    """Steps are asked in order, and none behind the one that answers."""
    asked: list[str] = []

    def broken(_: int) -> NoReturn:
        asked.append("broken")
        msg = "also gone"
        raise ConnectionError(msg)

    def working(user: int) -> list[int]:
        asked.append("working")
        return [user]

    def needless(_: int) -> list[int]:
        asked.append("needless")
        return []

    steps = [fallback.call(broken), fallback.call(working), fallback.call(needless)]
    pipeline = Pipeline("ask", USERS, no_answers, fallbacks=steps)

    outcome = run(pipeline, raising(OSError("gone")), 7)

    assert outcome == Outcome(
        value=[7], level=Level.REDUCED, reason="OSError", source="working", dependency="users"
    )
    assert asked == ["broken", "working"]


def test_degraded_answer_is_announced_once(run: Run, no_answers: Answers) -> None:
    """Listeners hear who could not answer, why, and how good the answer is."""
    listening = Listening()
    pipeline = Pipeline(
        "shop.ask", USERS, no_answers, fallbacks=[fallback.static(0)], listeners=[listening]
    )

    run(pipeline, raising(RejectedError("users", 5)))

    assert listening.heard == [
        AnswerDegraded(
            call="shop.ask",
            dependency="users",
            level=Level.STATIC,
            reason="RejectedError",
            error="users was not called; retry after 5 s",
            source="static",
            age=None,
        )
    ]


def test_listener_that_raises_does_not_change_the_answer(run: Run, no_answers: Answers) -> None:
    """Monitoring never fails the job it watches."""
    pipeline = Pipeline(
        "ask",
        USERS,
        no_answers,
        fallbacks=[fallback.static(0)],
        listeners=[raising(RuntimeError("no metrics today"))],
    )

    assert run(pipeline, raising(OSError("gone"))).value == 0


def test_call_that_takes_too_long_degrades(no_answers: Answers) -> None:
    """A synchronous call is cut at its dependency's timeout, and the chain answers."""
    pipeline = Pipeline("ask", HASTY, no_answers, fallbacks=[fallback.static(0)])

    outcome = pipeline.call(threading.Event().wait, LATE_SECONDS)

    assert (outcome.value, outcome.reason) == (0, "AttemptTimeoutError")


def test_async_call_that_takes_too_long_degrades(no_answers: Answers) -> None:
    """A coroutine is cancelled at its dependency's timeout, and the chain answers."""
    pipeline = Pipeline("ask", HASTY, no_answers, fallbacks=[fallback.static(0)])

    outcome = asyncio.run(pipeline.call_async(asyncio.sleep, LATE_SECONDS))

    assert (outcome.value, outcome.reason) == (0, "AttemptTimeoutError")


def test_call_that_takes_too_long_says_whose_time_was_up(no_answers: Answers) -> None:
    """Without fallbacks the caller gets the dependency and its timeout, both ways."""
    pipeline = Pipeline("ask", HASTY, no_answers)

    with pytest.raises(AttemptTimeoutError) as sync:
        pipeline.call(threading.Event().wait, LATE_SECONDS)
    with pytest.raises(AttemptTimeoutError) as asynchronous:
        asyncio.run(pipeline.call_async(asyncio.sleep, LATE_SECONDS))

    assert sync.value.args == asynchronous.value.args == ("users", 0.1)


def test_outer_timeout_is_not_answered_by_an_inner_chain(no_answers: Answers) -> None:
    """A call inside another one does not outlive it, and is not blamed for it."""
    listening = Listening()
    inner = Pipeline(
        "inner",
        Dependency("payments", timeout=5),
        no_answers,
        fallbacks=[fallback.static("inner")],
        listeners=[listening],
    )
    outer = Pipeline("outer", HASTY, no_answers, fallbacks=[fallback.static("outer")])

    outcome = outer.call(inner.call, threading.Event().wait, LATE_SECONDS)
    asynchronous = asyncio.run(outer.call_async(inner.call_async, asyncio.sleep, LATE_SECONDS))

    assert outcome.value == asynchronous.value == "outer"
    assert not listening.heard


def test_inner_timeout_is_answered_by_the_inner_chain(no_answers: Answers) -> None:
    """The outer call goes on with the inner one's degraded answer."""
    inner = Pipeline("inner", HASTY, no_answers, fallbacks=[fallback.static("inner")])
    outer = Pipeline(
        "outer", Dependency("payments"), no_answers, fallbacks=[fallback.static("outer")]
    )

    outcome = outer.call(inner.call, threading.Event().wait, LATE_SECONDS)

    assert (outcome.value, outcome.level) == ("inner", Level.STATIC)


@pytest.mark.parametrize("fallbacks", [[], [fallback.static(0)]], ids=["plain", "chain"])
def test_coroutine_function_is_refused_by_the_synchronous_way(
    no_answers: Answers, fallbacks: list[Step]
) -> None:
    """Nobody gets a coroutine that no limit and no fallback will see the end of."""
    pipeline = Pipeline("ask", USERS, no_answers, fallbacks=fallbacks)

    with pytest.raises(TypeError, match="ask called a coroutine function"):
        pipeline.call(asyncio.sleep, 0)


def test_cancelled_call_is_cancelled(no_answers: Answers) -> None:
    """Who cancels a call wants no answer: no step is asked."""
    asked = Listening()
    pipeline = Pipeline("ask", USERS, no_answers, fallbacks=[fallback.call(asked)])

    async def cancelled() -> None:
        started = asyncio.Event()

        async def hang() -> None:
            started.set()
            await asyncio.sleep(LATE_SECONDS)

        task = asyncio.create_task(pipeline.call_async(hang))
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancelled())
    assert not asked.heard


def test_fallback_that_takes_too_long_is_passed_over(no_answers: Answers) -> None:
    """A step has as long as the call had; the next one answers, both ways."""

    async def hang() -> None:
        await asyncio.sleep(LATE_SECONDS)

    steps = [fallback.static("static")]
    hasty = Pipeline(
        "ask", HASTY, no_answers, fallbacks=[fallback.call(threading.Event().wait), *steps]
    )
    lazy = Pipeline("ask", HASTY, no_answers, fallbacks=[fallback.call(hang), *steps])

    assert run_sync(hasty, raising(OSError("gone"))).value == "static"
    assert run_async(lazy, raising(OSError("gone"))).value == "static"


def test_fallback_that_takes_too_long_is_a_reason(no_answers: Answers) -> None:
    """Who gets no answer at all learns which step was too slow."""
    wait = fallback.call(threading.Event().wait)

    with pytest.raises(AllFallbacksFailedError) as caught:
        Pipeline("ask", HASTY, no_answers, fallbacks=[wait]).call(raising(OSError("gone")))

    too_slow = "AttemptTimeoutError: wait did not answer within 0.1 s"
    assert caught.value.reasons == {"run": "OSError: gone", "1. wait": too_slow}


def test_arithmetic_mistake_is_an_outage(run: Run, no_answers: Answers) -> None:
    """A division by zero may come of an answer such as `{"count": 0}`."""
    pipeline = Pipeline("ask", USERS, no_answers, fallbacks=[fallback.static(0)])

    assert run(pipeline, lambda: 1 // 0).reason == "ZeroDivisionError"
