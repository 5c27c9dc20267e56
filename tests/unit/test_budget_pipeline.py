"""Calls through a pipeline under a budget: what each part of the way gets of it."""

import threading
from collections.abc import Iterator
from time import perf_counter

import pytest

from resilience import (
    AllFallbacksFailedError,
    AttemptTimeoutError,
    BudgetExceededError,
    Dependency,
    Level,
    Pipeline,
    TimeoutBudget,
    current_budget,
    fallback,
)
from resilience.breaker import BreakerPolicy, State
from resilience.budget import Allowance
from resilience.store import Answers
from tests.unit.breakers import Rig
from tests.unit.budgets import hang, left_here, spent
from tests.unit.calling import Run, raising, run_async, run_sync
from tests.unit.stopwatch import elapsed

BLOCK_SECONDS = 1.0
TRIPPED = BreakerPolicy(minimum_calls=2, failure_ratio=0.5)


@pytest.fixture(autouse=True)
def _no_budget_is_left_behind() -> Iterator[None]:
    """Whatever a test does, no code after it runs under its budget."""
    yield
    assert current_budget() is None


def wait() -> None:
    """Take too long for every limit here."""
    threading.Event().wait(BLOCK_SECONDS)


@pytest.mark.parametrize(
    ("timeout", "total", "least", "most"),
    [
        pytest.param(0.1, 30, 0.1, 0.1, id="timeout"),
        pytest.param(1.0, 0.2, 0.17, 0.19, id="remaining, less its reserve"),
        pytest.param(None, 0.2, 0.17, 0.19, id="no timeout"),
    ],
)
def test_attempt_ends_with_its_timeout_or_the_budget(
    no_answers: Answers, timeout: float | None, total: float, least: float, most: float
) -> None:
    """The sooner of both cuts; of a budget, 5 % is kept for what comes after the attempt."""
    pipeline = Pipeline("ask", Dependency("users", timeout=timeout), no_answers)

    with TimeoutBudget(total), pytest.raises(AttemptTimeoutError) as caught:
        pipeline.call(hang)

    assert least <= caught.value.seconds <= most


def test_reserve_is_small_however_long_the_budget() -> None:
    """A twentieth is kept, but never more than 50 ms."""
    with TimeoutBudget(3600) as budget:
        seconds, error = Allowance("ask", "users", 3600.0).within(budget)

    assert 3590 < seconds <= 3599.95
    assert isinstance(error(), AttemptTimeoutError)


def test_call_is_not_begun_when_nothing_is_left(run: Run, no_answers: Answers) -> None:
    """A spent budget calls nobody; without fallbacks the caller gets its error."""
    called: list[int] = []
    pipeline = Pipeline("ask", Dependency("users"), no_answers)

    with spent(), pytest.raises(BudgetExceededError, match="ask was not begun"):
        run(pipeline, called.append, 1)

    assert not called


def test_static_answer_is_given_when_nothing_is_left(run: Run, no_answers: Answers) -> None:
    """It takes no time, so there is always time for it; steps before it are not begun."""
    asked: list[int] = []
    steps = [fallback.call(asked.append), fallback.static("static")]
    pipeline = Pipeline("ask", Dependency("users"), no_answers, fallbacks=steps)

    with spent():
        outcome = run(pipeline, asked.append, 1)

    assert (outcome.value, outcome.level) == ("static", Level.STATIC)
    assert outcome.reason == "BudgetExceededError"
    assert not asked


def test_chain_without_a_static_answer_explains_that_nothing_was_left(
    run: Run, no_answers: Answers
) -> None:
    """Level 4 says of the call and of each step that the budget was spent."""
    pipeline = Pipeline(
        "ask", Dependency("users"), no_answers, fallbacks=[fallback.call(left_here)]
    )

    with spent(), pytest.raises(AllFallbacksFailedError) as caught:
        run(pipeline, left_here)

    assert list(caught.value.reasons) == ["run", "1. left_here"]
    assert all("BudgetExceededError" in reason for reason in caught.value.reasons.values())


@pytest.mark.parametrize("timeout", [30.0, None])
def test_chain_answers_within_what_remains(no_answers: Answers, timeout: float | None) -> None:
    """A call and a step that hang together take the budget, not their timeouts, and no more."""
    steps = [fallback.call(wait), fallback.static("static")]
    dependency = Dependency("users", timeout=timeout)
    pipeline = Pipeline("ask", dependency, no_answers, fallbacks=steps)

    def call() -> None:
        with TimeoutBudget(0.3) as budget:
            assert pipeline.call(wait).value == "static"
            assert budget.remaining() < 0.2

    assert elapsed(call) < BLOCK_SECONDS


def test_chain_inside_a_share_answers_before_the_share_is_cut(no_answers: Answers) -> None:
    """A step that hangs leaves time for the static answer after it, also in a share."""
    steps = [fallback.call(wait), fallback.static("static")]
    pipeline = Pipeline("ask", Dependency("users"), no_answers, fallbacks=steps)
    budget = TimeoutBudget(2)

    outcome = budget.run(pipeline.call, raising(OSError("gone")), allocation=0.3)

    assert outcome.value == "static"
    assert budget.reasons == {"Pipeline.call": "OSError"}
    assert 1 < budget.remaining() < 1.5


def test_call_that_had_its_time_counts_against_the_dependency(no_answers: Answers) -> None:
    """A dependency that does not answer in a fair share of its timeout has failed."""
    rig = Rig(TRIPPED)
    pipeline = Pipeline("ask", Dependency("users", timeout=1), no_answers, breaker=rig.breaker)

    for _ in range(2):
        with TimeoutBudget(0.15), pytest.raises(AttemptTimeoutError):
            pipeline.call(wait)
    rig.tell()

    assert rig.breaker.state is State.OPEN


@pytest.mark.parametrize("timeout", [10.0, None], ids=["timeout", "no timeout"])
def test_call_that_had_no_chance_does_not_count(no_answers: Answers, timeout: float | None) -> None:
    """Work that begins with next to nothing left says nothing about the dependency."""
    rig = Rig(TRIPPED)
    dependency = Dependency("users", timeout=timeout)
    pipeline = Pipeline("ask", dependency, no_answers, breaker=rig.breaker)

    for total in (0.1, 0.1, 1e-6, 1e-6):
        late = TimeoutBudget.until(TimeoutBudget(total).deadline, 10)
        with late, pytest.raises(BudgetExceededError) as caught:
            pipeline.call(wait)
        assert not caught.value.conclusive
    rig.tell()

    assert rig.breaker.state is State.CLOSED


@pytest.mark.parametrize(("share", "state"), [(0.5, State.OPEN), (0.02, State.CLOSED)])
def test_share_that_cuts_a_guarded_call_counts_if_it_was_worth_something(
    share: float, state: State
) -> None:
    """The same holds for a call in a breaker that a budget's own share cuts."""
    rig = Rig(TRIPPED)

    for _ in range(2):
        with pytest.raises(BudgetExceededError), rig.breaker:
            TimeoutBudget(0.5).run(wait, allocation=share)
    rig.tell()

    assert rig.breaker.state is state


def test_call_without_timeout_stays_in_its_thread(no_answers: Answers) -> None:
    """A dependency that opted out of a limit is called by its caller's own thread."""
    pipeline = Pipeline("ask", Dependency("users", timeout=None), no_answers)
    limited = Pipeline("ask", Dependency("users", timeout=5), no_answers)
    found: list[bool] = []

    def call() -> None:
        me = threading.get_ident()
        found.extend(one.call(threading.get_ident) == me for one in (pipeline, limited))

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()

    assert found == [True, False]


def test_call_in_time_is_as_without_a_budget(no_answers: Answers) -> None:
    """Who has time notices nothing, both ways."""
    pipeline = Pipeline("ask", Dependency("users"), no_answers, fallbacks=[fallback.static(0)])
    began = perf_counter()

    with TimeoutBudget(30):
        assert run_sync(pipeline, int, 7) == run_async(pipeline, int, 7)
        assert run_sync(pipeline, int, 7).level is Level.FULL

    assert perf_counter() - began < 20
