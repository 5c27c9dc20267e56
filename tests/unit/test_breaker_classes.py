"""What the end of a call says about its dependency, and which policies there are."""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from pydantic import ValidationError

from resilience import AttemptTimeoutError, ConfigurationError, RejectedError
from resilience.breaker import BreakerPolicy, State
from resilience.breaker.classify import Classifier
from resilience.errors import BUGS, as_bug
from tests.unit.breakers import Rig, raise_


class RefusedError(ConnectionError):
    """The dependency said no."""

    def __init__(self, status: int) -> None:
        """Keep the status."""
        super().__init__(status)
        self.status = status


class AbandonedError(BaseException):
    """A timeout that no handler of `Exception` shall catch, as gevent's."""


def is_server_error(error: BaseException) -> bool:
    """Tell whether the dependency itself is at fault."""
    return getattr(error, "status", 500) >= 500


def broken_judge(_: object) -> bool:
    """Raise, as a predicate that expects another type does."""
    msg = "no such attribute"
    raise AttributeError(msg)


@pytest.mark.parametrize(
    ("options", "error", "kind"),
    [
        ({}, ConnectionError(), "failed"),
        ({}, asyncio.CancelledError(), "neutral"),
        ({}, KeyboardInterrupt(), "neutral"),
        ({}, RejectedError("users"), "neutral"),
        ({"ignore": (OSError,)}, ConnectionError(), "neutral"),
        ({"ignore": (OSError,)}, ValueError(), "failed"),
        ({"count": (OSError,)}, ConnectionError(), "failed"),
        ({"count": (OSError,)}, ValueError(), "ok"),
        ({"count": (OSError,)}, NameError(), "neutral"),
        ({"count": (OSError,)}, TypeError(), "ok"),
        ({}, TypeError(), "failed"),
        ({}, as_bug(TypeError()), "neutral"),
        ({"count": (KeyError,)}, KeyError(), "failed"),
        ({"count": (OSError,), "ignore": (ConnectionError,)}, ConnectionError(), "neutral"),
        ({"count": (BaseException,)}, KeyboardInterrupt(), "neutral"),
        ({"count": (Exception,)}, RejectedError("users"), "neutral"),
        ({"failure_if": is_server_error}, RefusedError(503), "failed"),
        ({"failure_if": is_server_error}, RefusedError(404), "ok"),
        ({"failure_if": is_server_error}, NameError(), "neutral"),
        ({"failure_if": is_server_error, "count": (OSError,)}, RefusedError(503), "failed"),
        ({"failure_if": is_server_error, "count": (OSError,)}, RefusedError(404), "ok"),
        ({"failure_if": is_server_error, "count": (OSError,)}, ValueError(), "ok"),
        ({"failure_if": broken_judge}, RefusedError(404), "failed"),
        ({"count": (OSError,)}, AttemptTimeoutError("users", 1.0), "failed"),
        ({"count": (KeyError,)}, AttemptTimeoutError("users", 1.0), "failed"),
        ({"count": (AbandonedError,)}, AbandonedError(), "failed"),
        ({}, AbandonedError(), "neutral"),
        ({}, ExceptionGroup("", [RejectedError("users"), NameError()]), "neutral"),
        ({}, ExceptionGroup("", [RejectedError("users"), ConnectionError()]), "failed"),
        ({"ignore": (OSError,)}, ExceptionGroup("", [ConnectionError()]), "neutral"),
        ({"ignore": (ExceptionGroup,)}, ExceptionGroup("", [ConnectionError()]), "neutral"),
        ({"count": (OSError,)}, ExceptionGroup("", [ConnectionError()]), "failed"),
        ({"count": (OSError,)}, ExceptionGroup("", [ValueError()]), "ok"),
        ({"count": (ExceptionGroup,)}, ExceptionGroup("", [ValueError()]), "failed"),
        ({"failure_if": is_server_error}, ExceptionGroup("", [RefusedError(404)]), "ok"),
    ],
)
def test_exception_is_sorted(options: dict[str, Any], error: BaseException, kind: str) -> None:
    """Every option is heeded, alone and with the others; what is never a failure stays so."""
    assert Classifier(BreakerPolicy(**options), ()).kind(error) == kind


@pytest.mark.parametrize("bug", BUGS)
def test_bug_is_no_outage(bug: type[Exception]) -> None:
    """An error in the caller's own code says nothing about the dependency."""
    error = bug.__new__(bug)

    assert Classifier(BreakerPolicy(), ()).kind(error) == "neutral"


def test_bugs_are_those_that_the_caller_names() -> None:
    """Apart from them every exception is a failure."""
    classifier = Classifier(BreakerPolicy(), (), bugs=(OSError,))

    assert classifier.kind(ConnectionError()) == "neutral"
    assert classifier.kind(NameError()) == "failed"


@pytest.mark.parametrize("judge", [lambda value: value == "", broken_judge])
def test_result_is_judged(judge: Callable[[object], bool]) -> None:
    """Answers that the policy calls failures open the circuit and still reach the caller.

    So do those that the judge cannot judge.
    """
    rig = Rig(BreakerPolicy(minimum_calls=4, failure_if_result=judge))

    for _ in range(4):
        assert not rig.breaker.call(str)
    rig.tell()

    assert rig.breaker.state is State.OPEN


def test_result_that_is_judged_good_opens_no_circuit() -> None:
    """A judge of results makes failures of some, not of all."""
    rig = Rig(BreakerPolicy(minimum_calls=4, failure_if_result=lambda value: value != ""))

    rig.succeed(4)
    rig.tell()

    assert rig.breaker.state is State.CLOSED


def test_result_is_judged_on_an_event_loop_and_when_decorated() -> None:
    """Every way to call heeds the judge."""
    rig = Rig(BreakerPolicy(minimum_calls=3, failure_if_result=lambda value: value == ""))

    async def nothing() -> str:
        return ""

    asyncio.run(rig.breaker.acall(nothing))
    asyncio.run(rig.breaker(nothing)())
    assert not rig.breaker(lambda: "")()
    rig.tell()

    assert rig.breaker.state is State.OPEN


def test_error_of_a_judge_does_not_hide_the_error_of_the_call(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The caller gets what its call raised; the log names the judge and what it was to judge."""
    rig, error = Rig(BreakerPolicy(failure_if=broken_judge)), RefusedError(503)

    with pytest.raises(RefusedError) as caught:
        rig.breaker.call(raise_, error)

    assert caught.value is error
    (record,) = caplog.records
    assert record.getMessage() == f"{broken_judge!r} could not judge a RefusedError"
    assert record.exc_info is not None
    assert record.exc_info[0] is AttributeError


@pytest.mark.parametrize(
    "options",
    [
        {"failure_ratio": 0.0},
        {"failure_ratio": 1.01},
        {"failure_ratio": float("nan")},
        {"slow_ratio": 0},
        {"slow_seconds": 0},
        {"slow_seconds": float("inf")},
        {"minimum_calls": 0},
        {"window_seconds": 0},
        {"window_seconds": 301},
        {"consecutive_failures": 0},
        {"min_reporters": 0},
        {"open_seconds": -1},
        {"open_seconds": float("inf")},
        {"open_seconds": 100_000, "open_seconds_max": 100_000},
        {"open_seconds": 4, "open_seconds_max": 2},
        {"half_open_probes": 0},
        {"probe_seconds": 0},
        {"ignore": (1,)},
        {"count": ("OSError",)},
        {"failure_if": "status"},
        {"threshold": 5},
    ],
    ids=repr,
)
def test_policy_refuses_what_makes_no_sense(options: dict[str, Any]) -> None:
    """A bound that is crossed or a name that is unknown is an error where it is written."""
    with pytest.raises(ValidationError) as caught:
        BreakerPolicy(**options)

    assert next(iter(options)) in str(caught.value)


def test_policy_refuses_a_breaker_that_can_never_trip() -> None:
    """With no condition left there is no breaker."""
    with pytest.raises(ValidationError, match="can never trip"):
        BreakerPolicy(failure_ratio=None, consecutive_failures=None)

    BreakerPolicy(failure_ratio=None, slow_seconds=1.0)
    BreakerPolicy(failure_ratio=None, consecutive_failures=3)


def test_policy_cannot_be_changed() -> None:
    """What was validated stays as it is."""
    with pytest.raises(AttributeError):
        BreakerPolicy().minimum_calls = 0  # type: ignore[misc]  # what is tried


def test_two_breakers_of_one_name_cannot_share_a_pulse() -> None:
    """The second would take the first one's place, which then would protect nothing."""
    rig = Rig(name="users")

    with pytest.raises(ConfigurationError, match="users"):
        type(rig.breaker)("users", rig.pulse)


def takes_one(answer: object) -> object:
    """Read an answer."""
    return answer["name"]  # type: ignore[index] # of None


async def takes_one_async(answer: object) -> object:
    """Do the same."""
    return takes_one(answer)


@pytest.mark.parametrize("way", ["call", "decorated", "acall", "decorated async"])
@pytest.mark.parametrize(
    ("args", "state"),
    [((), State.CLOSED), ((1, 2), State.CLOSED), ((None,), State.OPEN)],
    ids=["too-few", "too-many", "unreadable"],
)
def test_wrong_arguments_are_no_outage(way: str, args: tuple[Any, ...], state: State) -> None:
    """A call that never reached the body says nothing; a `TypeError` of the body is a failure."""
    rig = Rig(BreakerPolicy(minimum_calls=3))
    breaker = rig.breaker
    plain: Callable[..., Any] = (
        breaker(takes_one) if "dec" in way else partial(breaker.call, takes_one)
    )
    waiting: Callable[..., Any] = (
        breaker(takes_one_async) if "dec" in way else partial(breaker.acall, takes_one_async)
    )

    for _ in range(3):
        with pytest.raises(TypeError):
            asyncio.run(waiting(*args)) if way.startswith("a") or "async" in way else plain(*args)
    rig.tell()

    assert breaker.state is state
