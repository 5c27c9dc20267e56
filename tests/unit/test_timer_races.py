"""Limits in time that end in the very moment in which their block begins or ends."""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from time import perf_counter
from types import FrameType
from typing import Any

import pytest

from resilience.budget import timer
from resilience.budget.timer import Alarm

ROUNDS = [1000, pytest.param(50_000, marks=pytest.mark.long)]
ENDLESS_SECONDS = 10.0


class LateError(Exception):
    """What the limit of a test raises."""


class LaterError(Exception):
    """What the outer one of two limits raises."""


@pytest.fixture(autouse=True)
def _default_alarm() -> Iterator[None]:
    """Take the alarm from whoever has it, as pytest-timeout does, and give it back."""
    handler = signal.signal(signal.SIGALRM, signal.SIG_DFL)
    left, interval = signal.setitimer(signal.ITIMER_REAL, 0)
    yield
    signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, left, interval)


@pytest.mark.parametrize("rounds", ROUNDS)
@pytest.mark.parametrize("microseconds", [1, 3, 5, 8, 12])
def test_time_limit_raises_nothing_but_its_error_when_the_alarm_meets_the_blocks_end(
    microseconds: int, rounds: int
) -> None:
    """Whenever the alarm comes, a block ends well or in the limit's error, and nothing is left."""
    for _ in range(rounds):
        with suppress(LateError), Alarm(microseconds / 1e6, LateError):
            pass

    assert signal.getsignal(signal.SIGALRM) is signal.SIG_DFL
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


@pytest.mark.parametrize("rounds", ROUNDS)
@pytest.mark.parametrize("microseconds", [5, 10, 20])
def test_nested_limits_raise_nothing_but_their_errors_when_both_alarms_meet(
    microseconds: int, rounds: int
) -> None:
    """Of two alarms that come at about the same time neither is lost to the other's end."""
    inner, outer = microseconds / 1e6, microseconds / 0.9e6
    for _ in range(rounds):
        with (
            suppress(LaterError),
            Alarm(outer, LaterError),
            suppress(LateError),
            Alarm(inner, LateError),
        ):
            pass

    assert signal.getsignal(signal.SIGALRM) is signal.SIG_DFL
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_outer_limit_that_ends_while_an_inner_one_begins_is_not_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its alarm rings between the two steps by which the inner one takes handler and timer."""
    alarm = {signal.SIGALRM}
    usual = signal.pthread_sigmask(signal.SIG_BLOCK, alarm)

    def take_late(which: int, seconds: float) -> tuple[float, float]:
        monkeypatch.undo()
        outer = signal.setitimer(which, seconds)
        signal.pthread_sigmask(signal.SIG_SETMASK, usual)
        return outer

    try:
        with pytest.raises(LaterError), Alarm(ENDLESS_SECONDS, LaterError):  # noqa: PT012 - what is cut
            # To this thread alone: the signal of the timer any thread of a test runner may take.
            signal.pthread_kill(threading.get_ident(), signal.SIGALRM)
            signal.setitimer(signal.ITIMER_REAL, 0)
            assert alarm <= signal.sigpending()
            monkeypatch.setattr(timer, "_setitimer", take_late)
            with suppress(LateError), Alarm(1.0, LateError):
                spin()
            spin()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, usual)


@pytest.mark.parametrize(
    ("method", "event"), [(Alarm.__enter__, "return"), (Alarm.__exit__, "call")]
)
def test_alarm_that_meets_a_tracer_where_a_limit_begins_or_ends_leaves_nothing_behind(
    method: Any,  # noqa: ANN401 - a function of Python's
    event: str,
) -> None:
    """Coverage, debuggers and profilers run Python code there."""
    rung = 0

    def trace(frame: FrameType, what: str, _argument: object) -> Any:  # noqa: ANN401 - itself
        nonlocal rung
        if frame.f_code is method.__code__ and what == event:
            rung += 1
            signal.raise_signal(signal.SIGALRM)
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        with suppress(LateError), Alarm(ENDLESS_SECONDS, LateError):
            pass
    finally:
        sys.settrace(before)

    assert rung == 1
    assert signal.getsignal(signal.SIGALRM) is signal.SIG_DFL
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def spin() -> None:
    """Take far too long."""
    until = perf_counter() + ENDLESS_SECONDS
    while perf_counter() < until:
        pass
