"""Fallback steps and chains: what may be declared, and what each step answers."""

from collections.abc import Callable
from functools import partial
from threading import Lock
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilience import (
    AllFallbacksFailedError,
    ConfigurationError,
    Dependency,
    Level,
    Outcome,
    Pipeline,
    fallback,
)
from resilience.fallback import Step, check_chain
from resilience.store import Answers
from resilience.store.answers import Answer
from resilience.testing.valkey import ValkeyProcess
from tests.unit.calling import Run, run_async, run_sync
from tests.unit.untimed import untimed

USERS = Dependency("users")
MIDDLE = [Level.STALE, Level.REDUCED, Level.STATIC]


def fail(*_: object, **__: object) -> None:
    """Stand for a dependency that is down."""
    msg = "gone"
    raise OSError(msg)


def ask(run: Run, answers: Answers, step: Step, *args: object, **kwargs: object) -> Outcome[Any]:
    """Return what *step* answers to a call that failed."""
    outcome: Outcome[Any] = run(
        Pipeline("ask", USERS, answers, fallbacks=[step]), fail, *args, **kwargs
    )
    return outcome


@untimed
@given(st.lists(st.sampled_from(MIDDLE), max_size=5))
def test_chain_is_accepted_only_in_non_decreasing_level(levels: list[Level]) -> None:
    """A better level never stands behind a worse one; equal ones may follow each other."""
    steps = [fallback.static(1, level=level) for level in levels]

    if levels == sorted(levels):
        assert check_chain(steps, where="task x") == tuple(steps)
    else:
        with pytest.raises(ConfigurationError):
            check_chain(steps, where="task x")


def test_chain_in_the_wrong_order_is_refused_at_declaration(no_answers: Answers) -> None:
    """The error says where, and which two steps are in the wrong order."""
    steps = [fallback.static([]), fallback.stale(max_age=60)]

    with pytest.raises(ConfigurationError) as caught:
        Pipeline("task shop.recommend", USERS, no_answers, fallbacks=steps)

    for words in ("task shop.recommend", "stale (STALE) stands behind static (STATIC)"):
        assert words in str(caught.value)
    assert str(caught.value).endswith("; levels must not decrease along the chain")


@pytest.mark.parametrize("thing", [None, "static", len, [], Level.STATIC], ids=repr)
def test_chain_names_what_is_no_step(thing: object) -> None:
    """A bare function or value in a chain is refused, with what would be one."""
    with pytest.raises(ConfigurationError) as caught:
        check_chain([fallback.static(1), thing], where="task x")  # type: ignore[list-item]  # what must not work

    assert str(caught.value) == (
        f"task x: {thing!r} is no fallback step; use fallback.stale, .cached, .call or .static"
    )


@pytest.mark.parametrize("level", [Level.FULL, Level.FAILED, 7, "stale", None], ids=repr)
@pytest.mark.parametrize(
    "declare",
    [
        lambda level: fallback.static(1, level=level),
        lambda level: fallback.call(fail, level=level),
        lambda level: fallback.cached("popular", level=level),
    ],
    ids=["static", "call", "cached"],
)
def test_step_refuses_a_level_that_a_fallback_cannot_have(
    declare: Callable[[Any], Step], level: object
) -> None:
    """Only the three middle levels are degraded answers; the error names the other."""
    with pytest.raises(ConfigurationError) as caught:
        declare(level)

    assert repr(level) in str(caught.value)
    assert str(caught.value).endswith("; FULL is the call itself and FAILED is no answer")


@pytest.mark.parametrize("seconds", [0, -1, float("inf"), float("nan"), "60", None], ids=repr)
def test_stale_names_an_age_that_cannot_be(seconds: Any) -> None:  # noqa: ANN401 - what must not work
    """A stale answer needs an age in seconds, more than 0; the error names the other."""
    with pytest.raises(ConfigurationError) as caught:
        fallback.stale(max_age=seconds)

    for words in ("fallback step stale: max_age", repr(seconds)):
        assert words in str(caught.value)


@pytest.mark.parametrize("seconds", [0, -1, float("inf"), float("nan"), "60"], ids=repr)
def test_cached_names_an_age_that_cannot_be(seconds: Any) -> None:  # noqa: ANN401 - what must not work
    """A cached answer may have any age, or one in seconds, more than 0."""
    with pytest.raises(ConfigurationError) as caught:
        fallback.cached("popular", max_age=seconds)

    for words in ("fallback step cached:popular: max_age", repr(seconds)):
        assert words in str(caught.value)


def test_age_may_be_less_than_a_second() -> None:
    """Anything more than 0 is a length of time."""
    for step in (fallback.stale(max_age=0.5), fallback.cached("popular", max_age=0.5)):
        assert step.max_age == 0.5  # type: ignore[attr-defined]


def test_call_refuses_what_cannot_be_called() -> None:
    """The error names the value."""
    with pytest.raises(ConfigurationError, match="needs something to call, got 'popular'"):
        fallback.call("popular")  # type: ignore[arg-type]  # what must not work


def test_call_of_what_has_no_name_is_called_by_how_it_looks() -> None:
    """Outcomes and errors say which step it was."""
    step = fallback.call(partial(fail, 1))

    assert step.source == repr(partial(fail, 1))


def test_static_refuses_what_cannot_be_copied_at_declaration() -> None:
    """That a value cannot be handed out is found out before it is needed."""
    with pytest.raises(ConfigurationError, match="cannot be copied"):
        fallback.static([Lock()])


def test_static_answers_with_a_copy_each_time(run: Run, no_answers: Answers) -> None:
    """Who changes an answer, or the value it was declared with, changes no other answer."""
    value = {"items": [1, 2]}
    step = fallback.static(value)
    value["items"].append(3)
    first = ask(run, no_answers, step)
    first.value["items"].clear()

    second = ask(run, no_answers, step)

    assert second.value == {"items": [1, 2]}
    assert (second.level, second.source, second.age) == (Level.STATIC, "static", None)


def test_call_gets_the_arguments_of_the_call_that_failed(run: Run, no_answers: Answers) -> None:
    """The other function answers the same question."""

    def segment(user: int, *, limit: int) -> list[int]:
        return [user, limit]

    outcome = ask(run, no_answers, fallback.call(segment), 7, limit=3)

    assert outcome.value == [7, 3]
    assert (outcome.level, outcome.source) == (Level.REDUCED, "segment")


@pytest.mark.parametrize(
    ("inner", "level"),
    [(Level.FULL, Level.REDUCED), (Level.STALE, Level.REDUCED), (Level.STATIC, Level.STATIC)],
    ids=str,
)
def test_call_merges_an_outcome_by_its_worse_level(
    run: Run, no_answers: Answers, inner: Level, level: Level
) -> None:
    """A fallback that degraded itself is not sold as better than it is, and keeps its age."""

    def segment() -> Outcome[int]:
        return Outcome(value=1, level=inner, age=12.0)

    outcome = ask(run, no_answers, fallback.call(segment))

    assert (outcome.value, outcome.level, outcome.age) == (1, level, 12.0)


def test_call_awaits_a_coroutine_function(no_answers: Answers) -> None:
    """In an asynchronous pipeline the fallback may be asynchronous, too."""

    async def segment() -> str:
        return "popular in Kyiv"

    assert ask(run_async, no_answers, fallback.call(segment)).value == "popular in Kyiv"


def test_call_of_a_coroutine_function_is_a_bug_in_a_synchronous_pipeline(
    no_answers: Answers,
) -> None:
    """Nobody is handed a coroutine for an answer."""

    async def segment() -> str:
        return "popular in Kyiv"

    with pytest.raises(TypeError, match="segment is a coroutine function"):
        ask(run_sync, no_answers, fallback.call(segment))


def test_cached_answers_with_what_the_app_remembered(run: Run, answers: Answers) -> None:
    """What was kept under the name is the answer, with its age, for every call."""
    answers.remember("popular", ["a", "b"], max_age=60)

    outcome = ask(run, answers, fallback.cached("popular"), 7)

    assert outcome.value == ["a", "b"]
    assert (outcome.level, outcome.source) == (Level.STATIC, "cached:popular")
    assert outcome.age is not None
    assert 0 <= outcome.age < 5


@pytest.mark.parametrize(("max_age", "answered"), [(None, True), (50, True), (30, False)])
def test_cached_answers_only_within_its_own_age(
    run: Run, answers: Answers, valkey: ValkeyProcess, max_age: float | None, *, answered: bool
) -> None:
    """A value that is kept for long can still be too old for one chain, which goes on then."""
    answers.remember("popular", ["a"], max_age=100)
    valkey.client().pexpire(answers.key("popular"), 60_000)  # as 40 s later
    steps = [fallback.cached("popular", max_age=max_age), fallback.static([])]

    outcome = run(Pipeline("ask", USERS, answers, fallbacks=steps), fail)

    assert outcome.source == ("cached:popular" if answered else "static")
    if answered:
        assert outcome.age == pytest.approx(40, abs=5)


@pytest.mark.parametrize(("age", "answered"), [(30.0, True), (30.01, False)])
def test_answer_may_be_as_old_as_is_allowed_and_no_older(
    no_answers: Answers, monkeypatch: pytest.MonkeyPatch, age: float, *, answered: bool
) -> None:
    """The age that a step names is the oldest that it takes."""
    monkeypatch.setattr(no_answers, "recall", lambda _key: Answer(value="a", age=age))
    chain = [fallback.cached("popular", max_age=30.0), fallback.static("b")]

    outcome = run_sync(Pipeline("ask", USERS, no_answers, fallbacks=chain), fail)

    assert outcome.value == ("a" if answered else "b")


def test_chain_that_ends_says_that_nothing_was_remembered(run: Run, answers: Answers) -> None:
    """For each step that looked."""
    chain = [fallback.stale(max_age=60), fallback.cached("popular")]

    with pytest.raises(AllFallbacksFailedError) as caught:
        run(Pipeline("ask", USERS, answers, fallbacks=chain), fail)

    for reason in list(caught.value.reasons.values())[1:]:
        assert reason.endswith(": nothing is remembered")


def test_step_without_a_stored_answer_hands_on_to_the_next(run: Run, answers: Answers) -> None:
    """Nothing remembered is no answer, and the chain says so when it ends."""
    steps = [fallback.stale(max_age=60), fallback.cached("popular"), fallback.static([])]

    outcome = run(Pipeline("ask", USERS, answers, fallbacks=steps), fail)

    assert (outcome.value, outcome.source) == ([], "static")


@pytest.mark.parametrize("key", [None, "", 7], ids=repr)
def test_cached_needs_the_name_of_an_answer(key: Any) -> None:  # noqa: ANN401 - that is the point
    """Nothing could have been remembered under anything else."""
    with pytest.raises(ConfigurationError, match=f"got {key!r}"):
        fallback.cached(key)


@pytest.mark.parametrize(
    "declare", [fallback.stale, lambda max_age: fallback.cached("x", max_age=max_age)]
)
def test_age_is_no_yes_or_no(declare: Callable[..., Step]) -> None:
    """True is not taken for one second."""
    with pytest.raises(ConfigurationError, match="got True"):
        declare(max_age=True)
