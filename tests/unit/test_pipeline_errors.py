"""Errors on the way through a pipeline: which are outages, and what a chain says of them."""

import logging
import ssl

import pytest
import requests

from resilience import AllFallbacksFailedError, Dependency, Pipeline, RejectedError, fallback
from resilience.errors import BUGS, UNREADABLE
from resilience.events import AnswerUnreadable, FallbacksExhausted
from resilience.store import Answers
from tests.unit.calling import Listening, Run, raising
from tests.unit.odd_errors import ClosedError, EmptyError, SilentError

USERS = Dependency("users")


class Neutral(Exception):  # noqa: N818 - as Celery's Retry and Ignore are named
    """Control flow that is no failure."""


def test_chain_without_an_answer_explains_every_step(run: Run, no_answers: Answers) -> None:
    """Level 4 says what each step ended in, in order, and its cause is the first error."""
    listening = Listening()
    steps = [fallback.call(raising(ConnectionError())), fallback.call(raising(SilentError()))]
    pipeline = Pipeline("ask", USERS, no_answers, fallbacks=steps, listeners=[listening])
    error = OSError("gone")

    with pytest.raises(AllFallbacksFailedError) as caught:
        run(pipeline, raising(error))

    assert list(caught.value.reasons.items()) == [
        ("run", "OSError: gone"),
        ("1. failing", "ConnectionError"),
        ("2. failing", "SilentError: (its text raised KeyError)"),
    ]
    assert caught.value.__cause__ is error
    reasons = caught.value.reasons
    assert listening.heard == [FallbacksExhausted(call="ask", dependency="users", reasons=reasons)]


@pytest.mark.parametrize(
    ("first", "then", "seconds"),
    [
        pytest.param(RejectedError("users", 5), OSError(), 5.0, id="the-call"),
        pytest.param(RejectedError("users", 5), RejectedError("geo", 1), 5.0, id="the-call-first"),
        pytest.param(OSError(), RejectedError("geo", 1), 1.0, id="a-step"),
        pytest.param(OSError(), OSError(), None, id="nobody"),
        pytest.param(ClosedError(), ClosedError(), None, id="unusable"),
    ],
)
def test_chain_without_an_answer_says_when_to_come_back(
    run: Run, no_answers: Answers, first: Exception, then: Exception, seconds: float | None
) -> None:
    """The call's own word counts, else that of the first step that gave one."""
    steps = [fallback.call(raising(then))]
    pipeline = Pipeline("ask", USERS, no_answers, fallbacks=steps)

    with pytest.raises(AllFallbacksFailedError) as caught:
        run(pipeline, raising(first))

    assert caught.value.retry_after == seconds


@pytest.mark.parametrize("kind", BUGS)
def test_bug_in_the_call_is_raised_as_it_is(
    run: Run, no_answers: Answers, kind: type[Exception]
) -> None:
    """A bug is not an outage: no step is asked and nothing is announced."""
    asked, listening = Listening(), Listening()
    pipeline = Pipeline(
        "ask", USERS, no_answers, fallbacks=[fallback.call(asked)], listeners=[listening]
    )
    error = kind("broken")

    with pytest.raises(kind) as caught:
        run(pipeline, raising(error), 7)

    assert caught.value is error
    assert not asked.heard
    assert not listening.heard


@pytest.mark.parametrize("kind", BUGS)
def test_bug_in_a_step_is_raised_as_it_is(
    run: Run, no_answers: Answers, kind: type[Exception]
) -> None:
    """No later step hides it; its own cause stays, and behind it is why the step was asked."""
    error, outage, cause = kind("broken"), OSError("gone"), ValueError("why")
    error.__cause__ = cause
    pipeline = Pipeline(
        "ask",
        USERS,
        no_answers,
        fallbacks=[fallback.call(raising(error)), fallback.static(0)],
    )

    with pytest.raises(kind) as caught:
        run(pipeline, raising(outage))

    assert caught.value is error
    assert error.__cause__ is cause
    assert error.__context__ is outage


@pytest.mark.parametrize(
    "kind",
    [UnboundLocalError, ModuleNotFoundError, IndentationError],
)
def test_kinds_of_bugs_are_bugs(run: Run, no_answers: Answers, kind: type[Exception]) -> None:
    """What derives from a bug is one."""
    pipeline = Pipeline("ask", USERS, no_answers, fallbacks=[fallback.static(0)])

    with pytest.raises(kind):
        run(pipeline, raising(kind("broken")))


@pytest.mark.parametrize("inner", [NameError("broken"), Neutral()], ids=["bug", "neutral"])
@pytest.mark.parametrize("where", ["call", "step"])
def test_bug_in_a_group_is_not_hidden(
    run: Run, no_answers: Answers, inner: Exception, where: str
) -> None:
    """An `asyncio.TaskGroup` wraps errors; a bug among them is still one."""
    group = ExceptionGroup("two tasks", [OSError("gone"), ExceptionGroup("one", [inner])])
    steps = [fallback.static(0)]
    if where == "step":
        steps = [fallback.call(raising(group)), *steps]
    pipeline = Pipeline("ask", USERS, no_answers, fallbacks=steps, neutral=(Neutral,))

    with pytest.raises(ExceptionGroup) as caught:
        run(pipeline, raising(group if where == "call" else OSError("gone")))

    assert caught.value is group


@pytest.mark.parametrize("where", ["call", "step"])
def test_neutral_error_is_raised_as_it_is(run: Run, no_answers: Answers, where: str) -> None:
    """What the caller declared to be no failure passes through, from the call and its steps."""
    neutral = Neutral()
    listening = Listening()
    steps = [fallback.static(0)]
    if where == "step":
        steps = [fallback.call(raising(neutral)), *steps]
    pipeline = Pipeline(
        "ask", USERS, no_answers, fallbacks=steps, neutral=(Neutral,), listeners=[listening]
    )

    with pytest.raises(Neutral) as caught:
        run(pipeline, raising(neutral if where == "call" else OSError("gone")))

    assert caught.value is neutral
    assert not listening.heard


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_end_of_the_process_is_no_failure(no_answers: Answers, kind: type[BaseException]) -> None:
    """What ends the process, or a generator, ends the call: no fallback stands in."""
    pipeline = Pipeline("ask", USERS, no_answers, fallbacks=[fallback.static(0)])

    with pytest.raises(kind):
        pipeline.call(raising(kind()))


@pytest.mark.parametrize(
    "error",
    [
        SilentError(),
        ClosedError(),
        EmptyError(),
        ExceptionGroup("two tasks", [OSError("gone"), TimeoutError()]),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
        StopAsyncIteration(),
        Exception(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_odd_error_is_an_outage_like_any_other(
    run: Run, no_answers: Answers, error: Exception
) -> None:
    """However strangely a client's error behaves, the chain answers."""
    pipeline = Pipeline("ask", USERS, no_answers, fallbacks=[fallback.static(0)])

    outcome = run(pipeline, raising(error))

    assert (outcome.value, outcome.reason) == (0, type(error).__name__)


def test_odd_stop_iteration_is_an_outage_like_any_other(no_answers: Answers) -> None:
    """Even the one error that generators give a meaning of their own."""
    pipeline = Pipeline("ask", USERS, no_answers, fallbacks=[fallback.static(0)])

    assert pipeline.call(raising(StopIteration())).reason == "StopIteration"


@pytest.mark.parametrize("kind", UNREADABLE)
def test_unreadable_answer_is_an_outage_and_announced_louder(
    run: Run, no_answers: Answers, kind: type[Exception]
) -> None:
    """The chain answers, and an ERROR names the error and its place, as it may be a bug."""
    listening = Listening()
    steps = [fallback.call(raising(kind("again"))), fallback.static(0)]
    pipeline = Pipeline("ask", USERS, no_answers, fallbacks=steps, listeners=[listening])

    assert run(pipeline, raising(kind("odd"))).value == 0

    first, second = (one for one in listening.heard if isinstance(one, AnswerUnreadable))
    assert first.severity == logging.ERROR
    assert (first.source, first.reason, second.source) == (None, kind.__name__, "failing")
    assert " in raising.<locals>.failing" in first.place


@pytest.mark.parametrize(
    ("error", "loud"),
    [
        (requests.JSONDecodeError("odd", "", 0), True),
        (ExceptionGroup("two", [OSError(), KeyError()]), True),
        (ssl.SSLCertVerificationError("expired"), False),
        (ConnectionError(), False),
        (RejectedError("users"), False),
    ],
)
def test_only_what_may_be_a_bug_is_announced_louder(
    run: Run,
    no_answers: Answers,
    error: Exception,
    loud: bool,  # noqa: FBT001 - a parameter
) -> None:
    """What can only be an outage is announced as one, whatever else its class is."""
    listening = Listening()
    steps = [fallback.static(0)]
    pipeline = Pipeline("ask", USERS, no_answers, fallbacks=steps, listeners=[listening])

    assert run(pipeline, raising(error)).value == 0

    assert any(isinstance(one, AnswerUnreadable) for one in listening.heard) is loud


def test_wrong_arguments_are_raised_as_they_are(run: Run, no_answers: Answers) -> None:
    """A call that no answer can have spoilt is a bug, in the call and in a step."""

    def read(answer: str) -> str:
        return answer

    chain = Pipeline("ask", USERS, no_answers, fallbacks=[fallback.static(0)])
    step = Pipeline("ask", USERS, no_answers, fallbacks=[fallback.call(read), fallback.static(0)])

    with pytest.raises(TypeError, match="positional argument"):
        chain.call(read)
    with pytest.raises(TypeError, match="unexpected keyword"):
        run(step, raising(OSError()), "a", surplus=1)


@pytest.mark.parametrize(
    ("kind", "bugs", "raised"),
    [
        (KeyError, (KeyError,), True),
        (AssertionError, (), False),
        (AssertionError, None, True),
        (AttributeError, None, False),
    ],
)
def test_list_of_bugs_can_be_replaced(
    run: Run,
    no_answers: Answers,
    kind: type[Exception],
    bugs: tuple[type[Exception], ...] | None,
    raised: bool,  # noqa: FBT001 - a parameter
) -> None:
    """For one dependency, or for one pipeline of it."""
    steps = [fallback.static(0)]
    known = USERS if bugs is None else Dependency("users", bugs=bugs)
    for pipeline in (
        Pipeline("ask", known, no_answers, fallbacks=steps),
        Pipeline("ask", USERS, no_answers, fallbacks=steps, bugs=bugs),
    ):
        if raised:
            with pytest.raises(kind):
                run(pipeline, raising(kind()))
        else:
            assert run(pipeline, raising(kind())).value == 0
