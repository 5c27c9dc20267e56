"""Drills of fallback chains: what they find, and what they leave alone."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from queue import Empty, SimpleQueue
from typing import Any

import pytest
from celery.exceptions import Ignore, Retry, SoftTimeLimitExceeded

from resilience import (
    ConfigurationError,
    Dependency,
    Level,
    Outcome,
    Pipeline,
    TimeoutBudget,
    fallback,
)
from resilience.budget.threads import helper_threads
from resilience.bulkhead import Slots
from resilience.consistency.session import ConsistentSession, current_session, in_session
from resilience.events import Event, FallbackDrilled, FallbackDrillFailed
from resilience.fallback import Chain
from resilience.store import Answers, Store
from resilience.store.slots import SlotStore
from resilience.testing.valkey import ValkeyProcess
from resilience.testing.waiting import wait_until
from tests.unit.breakers import Rig
from tests.unit.calling import raising

USERS = Dependency("users")
HASTY = Dependency("users", timeout=0.1)
SECONDS = 20.0
EVERY_CALL = fallback.drill(share=1)

Drilled = Callable[..., list[Event]]
"""Makes a call through a pipeline, and returns what its drill announced."""


class Heard(SimpleQueue[Event]):
    """A listener of which threads can wait."""

    def __call__(self, event: Event) -> None:
        """Keep *event*."""
        self.put(event)

    def all(self) -> list[Event]:
        """Return what was heard since the last time."""
        events = []
        try:
            while True:
                events.append(self.get_nowait())
        except Empty:
            return events


def drilled_sync(
    pipeline: Any,  # noqa: ANN401 - a pipeline, of which it reads what is private
    heard: Heard,
    function: Callable[..., Any],
    /,
    *args: int,
) -> list[Event]:
    """Call *function* and wait for the thread of its drill."""
    assert pipeline.call(function, *args).level is Level.FULL
    if (thread := pipeline.drills._thread) is not None:  # noqa: SLF001 - nothing else says that it ended
        thread.join(SECONDS)
    return heard.all()


def drilled_async(
    pipeline: Any,  # noqa: ANN401 - as above
    heard: Heard,
    function: Callable[..., Any],
    /,
    *args: int,
) -> list[Event]:
    """Call *function* as a coroutine function and wait for the task of its drill."""

    async def coroutine_function(*args: int) -> Any:  # noqa: ANN401 - handed on
        return function(*args)

    async def main() -> None:
        outcome = await pipeline.call_async(coroutine_function, *args)
        assert outcome.level is Level.FULL
        if (task := pipeline.drills._task) is not None:  # noqa: SLF001 - as above
            await asyncio.wait_for(asyncio.shield(task), SECONDS)

    asyncio.run(main())
    return heard.all()


@pytest.fixture(params=[drilled_sync, drilled_async], ids=["sync", "async"])
def drilled(request: pytest.FixtureRequest) -> Drilled:
    """Both ways to call: what holds for one holds for the other."""
    way: Drilled = request.param
    return way


@pytest.fixture
def heard() -> Heard:
    """Hear nothing yet."""
    return Heard()


def made(heard: Heard, answers: Answers, *fallbacks: Any, dependency: Dependency = USERS) -> Any:  # noqa: ANN401 - steps and drills
    """Return a pipeline with a drilled chain."""
    return Pipeline("ask", dependency, answers, fallbacks=fallbacks, listeners=[heard])


def test_drill_finds_an_expired_list_within_1_000_full_answers(
    heard: Heard, answers: Answers, valkey: ValkeyProcess
) -> None:
    """With a share of 0.001 a process drills one of any 1,000 full answers, for sure."""
    answers.remember("popular", [744], max_age=60)
    pipeline = made(heard, answers, fallback.drill(share=0.001), fallback.cached("popular"))
    found: list[Event] = []
    for _ in range(2):
        for number in range(1000):
            pipeline.call(int, number)
        found.append(heard.get(timeout=SECONDS))
        valkey.client().delete(answers.key("popular"))  # as if it had expired
    in_order, rotten = found

    assert heard.empty()
    assert isinstance(in_order, FallbackDrilled)
    assert (in_order.call, in_order.dependency) == ("ask", "users")
    assert (in_order.level, in_order.source) == (Level.STATIC, "cached:popular")
    assert in_order.age is not None
    assert isinstance(rotten, FallbackDrillFailed)
    assert rotten.reasons == {"1. cached:popular": "NoStoredAnswerError: nothing is remembered"}


def test_drill_asks_as_a_degradation_would_up_to_the_first_step_that_answers(
    drilled: Drilled, heard: Heard, no_answers: Answers
) -> None:
    """It says who would have answered, at which level, in which time, and why the others not."""
    asked: list[str] = []

    def regional(user: int) -> Outcome[str]:
        asked.append(f"regional {user}")
        return Outcome(value="regional", level=Level.STATIC, age=3.0)

    steps = [fallback.call(raising(OSError("gone"))), fallback.call(regional)]
    last = fallback.call(lambda _: asked.append("last"), level=Level.STATIC)
    [found] = drilled(made(heard, no_answers, EVERY_CALL, *steps, last), heard, str, 7)

    assert isinstance(found, FallbackDrilled)
    assert (found.level, found.source, found.age) == (Level.STATIC, "regional", 3.0)
    assert found.reasons == {"1. failing": "OSError: gone"}
    assert 0 < found.seconds < SECONDS
    assert asked == ["regional 7"]


def test_drill_asks_for_what_was_remembered_before_the_answer_it_follows(
    drilled: Drilled, heard: Heard, answers: Answers
) -> None:
    """Had the call failed, its own answer would not have been there."""
    pipeline = made(heard, answers, EVERY_CALL, fallback.stale(max_age=60), fallback.static(0))

    [first] = drilled(pipeline, heard, str, 7)
    [second] = drilled(pipeline, heard, str, 7)

    assert isinstance(first, FallbackDrilled)
    assert (first.source, list(first.reasons)) == ("static", ["1. stale"])
    assert isinstance(second, FallbackDrilled)
    assert (second.level, second.source, second.reasons) == (Level.STALE, "stale", {})
    assert second.age is not None


def test_answer_does_not_wait_for_the_drill(heard: Heard, no_answers: Answers) -> None:
    """A fallback that takes long delays nobody; calls meanwhile are not drilled."""
    asked, go = SimpleQueue[int](), threading.Event()

    def slow(number: int) -> int:
        asked.put(number)
        assert go.wait(SECONDS)
        return number

    pipeline = made(heard, no_answers, EVERY_CALL, fallback.call(slow))
    assert [pipeline.call(int, number).value for number in range(5)] == [0, 1, 2, 3, 4]
    assert heard.empty()
    go.set()

    assert isinstance(heard.get(timeout=SECONDS), FallbackDrilled)
    assert asked.get(timeout=SECONDS) == 0
    assert asked.empty()


def test_answer_in_an_event_loop_does_not_wait_for_the_drill(
    heard: Heard, no_answers: Answers
) -> None:
    """The drill is a task of the loop, and calls meanwhile are not drilled."""

    async def main() -> None:
        asked, go = [], asyncio.Event()

        async def slow(number: int) -> None:
            asked.append(number)
            await go.wait()

        async def ask(number: int) -> int:
            return number

        pipeline = made(heard, no_answers, EVERY_CALL, fallback.call(slow))
        for number in range(5):
            assert (await pipeline.call_async(ask, number)).value == number
        assert heard.empty()
        go.set()
        assert isinstance(await asyncio.to_thread(heard.get, timeout=SECONDS), FallbackDrilled)
        assert asked == [0]

    asyncio.run(main())


@pytest.mark.parametrize("error", [ConnectionError("gone"), ZeroDivisionError(), NameError("typo")])
def test_drill_neither_changes_an_answer_nor_raises_nor_counts(
    drilled: Drilled, heard: Heard, answers: Answers, error: Exception
) -> None:
    """What a step raises is a finding; the call was answered, and no circuit hears of it."""
    rig = Rig()
    steps: list[Any] = [EVERY_CALL, fallback.stale(max_age=60), fallback.call(raising(error))]
    pipeline = Pipeline(
        "ask", USERS, answers, breaker=rig.breaker, fallbacks=steps, listeners=[heard]
    )

    for number in range(10):
        [found] = drilled(pipeline, heard, str, number)
        assert isinstance(found, FallbackDrillFailed)
        assert found.reasons["2. failing"].startswith(type(error).__name__)

    rig.tell()
    assert rig.breaker.state == "closed"
    assert rig.listening.heard == []
    recalled = answers.recall(answers.key_of_call("ask", (0,), {}))
    assert recalled is not None
    assert recalled.value == "0"


def test_bug_ends_a_drill_as_it_ends_a_chain(
    drilled: Drilled, heard: Heard, no_answers: Answers
) -> None:
    """No step behind it would have been asked."""
    chain = [EVERY_CALL, fallback.call(raising(NameError("typo"))), fallback.static(0)]
    [found] = drilled(made(heard, no_answers, *chain), heard, str, 7)

    assert isinstance(found, FallbackDrillFailed)
    assert found.reasons == {"1. failing": "NameError: typo"}


@pytest.mark.parametrize("error", [Retry(), Ignore(), SoftTimeLimitExceeded()], ids=repr)
def test_what_steers_or_ends_a_job_says_nothing_of_the_chain(
    drilled: Drilled, heard: Heard, no_answers: Answers, error: Exception
) -> None:
    """The drill ends with it, in silence."""
    asked: list[int] = []
    steps = [fallback.call(raising(error)), fallback.call(asked.append)]

    assert drilled(made(heard, no_answers, EVERY_CALL, *steps), heard, int, 7) == []
    assert asked == []


def test_answer_that_is_not_full_is_neither_drilled_nor_counted(
    drilled: Drilled, heard: Heard, no_answers: Answers
) -> None:
    """A chain that answers needs no drill, and nor does a call that degraded by itself."""
    pipeline = made(heard, no_answers, EVERY_CALL, fallback.static(0))
    pipeline.call(lambda: Outcome(value=1, level=Level.REDUCED))
    assert heard.empty()

    pipeline.call(raising(OSError("gone")))
    assert [type(event).__name__ for event in heard.all()] == ["AnswerDegraded"]
    assert len(drilled(pipeline, heard, str)) == 1


@pytest.fixture
def go() -> Iterator[threading.Event]:
    """What hanging steps wait for; set at the end, when all threads that hang must end."""
    event = threading.Event()
    yield event
    event.set()
    wait_until(
        lambda: not helper_threads.abandoned, SECONDS, "no call that was given up still runs"
    )


def test_hanging_step_is_cut_and_found(
    drilled: Drilled, heard: Heard, no_answers: Answers, go: threading.Event
) -> None:
    """Each step has the timeout of the dependency; the others are asked all the same."""

    def hang(_: int) -> Any:  # noqa: ANN401 - a coroutine, or nothing
        return asyncio.sleep(SECONDS) if drilled is drilled_async else go.wait(SECONDS)

    steps = [fallback.call(hang), fallback.call(raising(OSError("gone")))]
    pipeline = made(heard, no_answers, EVERY_CALL, *steps, dependency=HASTY)
    [found] = drilled(pipeline, heard, str, 7)

    assert isinstance(found, FallbackDrillFailed)
    assert list(found.reasons) == ["1. hang", "2. failing"]
    assert found.reasons["1. hang"].startswith("AttemptTimeoutError")
    assert 0.1 <= found.seconds < SECONDS


def test_no_drill_begins_while_a_call_that_was_given_up_still_runs(
    heard: Heard, no_answers: Answers, go: threading.Event
) -> None:
    """Only so many may: drills of a step that hangs for ever must not use them all up."""
    step = fallback.call(lambda _: go.wait(SECONDS))
    pipeline = made(heard, no_answers, EVERY_CALL, step, dependency=HASTY)

    assert len(drilled_sync(pipeline, heard, str, 7)) == 1
    for _ in range(3):
        assert drilled_sync(pipeline, heard, str, 7) == []
    assert helper_threads.abandoned == 1


def test_drill_takes_no_more_than_half_of_what_is_left_of_the_budget(
    heard: Heard, no_answers: Answers, go: threading.Event
) -> None:
    """A step that has no time to answer says nothing of the chain."""
    pipeline = made(heard, no_answers, EVERY_CALL, fallback.call(lambda _: go.wait(SECONDS)))
    with TimeoutBudget(1.0) as budget:
        assert drilled_sync(pipeline, heard, str, 7) == []
        assert 0.1 < budget.remaining() < 0.6


@pytest.mark.parametrize("shared", [False, True], ids=["process", "fleet"])
def test_drill_leaves_the_last_slot_to_others(
    drilled: Drilled, heard: Heard, no_answers: Answers, store: Store, *, shared: bool
) -> None:
    """A step that calls through slots is refused at once, and says nothing of the chain."""

    def inner(slots: int) -> tuple[Pipeline, list[int]]:
        calls: list[int] = []
        leases = SlotStore(store) if shared else None
        capped = Slots("ranking", slots, store=leases, listeners=[heard])
        ranking = Pipeline("rank", Dependency("ranking"), no_answers, slots=capped)
        assert ranking.call(str) == ""  # a call that somebody waits for may have the last one
        step = fallback.call(lambda number: ranking.call(calls.append, number))
        return made(heard, no_answers, EVERY_CALL, step), calls

    scarce, plenty = inner(1), inner(2)

    assert drilled(scarce[0], heard, int, 7) == []
    [found] = drilled(plenty[0], heard, int, 7)

    assert isinstance(found, FallbackDrilled)
    assert (scarce[1], plenty[1]) == ([], [7])


def test_drill_leaves_the_last_slot_of_the_fleet_to_others(
    drilled: Drilled, heard: Heard, no_answers: Answers, store: Store
) -> None:
    """Also if another process has the others."""
    ours, theirs = (Slots("ranking", 2, store=SlotStore(store)) for _ in range(2))
    ranking = Pipeline("rank", Dependency("ranking"), no_answers, slots=ours)
    step = fallback.call(lambda number: ranking.call(int, number))
    pipeline = made(heard, no_answers, EVERY_CALL, step)

    assert theirs.call(SECONDS, drilled, pipeline, heard, int, 7) == []
    assert len(drilled(pipeline, heard, int, 7)) == 1


def test_drill_sees_nothing_for_the_user_of_the_call(
    drilled: Drilled, heard: Heard, no_answers: Answers
) -> None:
    """What a step reads would change the token and the level of the user's session."""
    sessions: list[object] = []
    step = fallback.call(lambda _: sessions.append(current_session()))
    pipeline = made(heard, no_answers, EVERY_CALL, step)

    session = ConsistentSession()
    with in_session(session):
        [found] = drilled(pipeline, heard, str, 7)
        assert current_session() is session

    assert isinstance(found, FallbackDrilled)
    assert sessions == [None]


def test_step_that_is_left_out_is_never_asked(
    drilled: Drilled, heard: Heard, no_answers: Answers
) -> None:
    """The drill says so, and says nothing if no other step answers."""
    orders: list[int] = []
    reorder = fallback.call(orders.append, drill=False)
    alone = made(heard, no_answers, EVERY_CALL, fallback.call(raising(OSError())), reorder)
    followed = made(heard, no_answers, EVERY_CALL, reorder, fallback.static(0))

    assert drilled(alone, heard, str, 7) == []
    [found] = drilled(followed, heard, str, 7)

    assert orders == []
    assert isinstance(found, FallbackDrilled)
    assert (found.source, found.reasons) == ("static", {"1. append": "left out of drills"})


@pytest.mark.parametrize("share", [-0.1, 1.1, 1e-9, float("nan"), float("inf"), True, "0.1", None])
def test_share_that_is_none_is_refused_where_it_is_written(share: Any) -> None:  # noqa: ANN401 - anything may be tried
    """The message names the value and what to write."""
    with pytest.raises(ConfigurationError, match=rf"share must be 0, or from .* got {share!r}"):
        fallback.drill(share=share)


@pytest.mark.parametrize(
    ("fallbacks", "message"),
    [
        ([EVERY_CALL, fallback.static(0), EVERY_CALL], "has 2 drills; keep one"),
        ([EVERY_CALL], "no step to ask; add one, or remove the drill"),
        ([EVERY_CALL, fallback.call(str, drill=False)], "no step to ask"),
    ],
    ids=["two", "alone", "all-left-out"],
)
def test_drill_without_a_chain_is_refused_at_declaration(
    no_answers: Answers, fallbacks: list[Any], message: str
) -> None:
    """The message names the call and the mend."""
    with pytest.raises(ConfigurationError, match=f"^ask: .*{message}"):
        Pipeline("ask", USERS, no_answers, fallbacks=fallbacks)


def test_drill_is_off_unless_it_is_declared(no_answers: Answers) -> None:
    """And with a share of 0."""
    chains: list[list[Any]] = [[], [fallback.drill(share=0)]]
    for chain in chains:
        chain.append(fallback.static(0))
        pipeline = Pipeline("ask", USERS, no_answers, fallbacks=chain)
        assert isinstance(pipeline.fallbacks, Chain)
        assert (pipeline.drills, len(pipeline.fallbacks)) == (None, 1)
