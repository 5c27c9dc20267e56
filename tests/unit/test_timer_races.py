"""Limits in time that end in the very moment in which their block begins or ends."""

import signal
from collections.abc import Iterator
from contextlib import suppress

import pytest

from resilience.budget.timer import Alarm

ROUNDS = 5000


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


@pytest.mark.parametrize("microseconds", [1, 3, 5, 8, 12])
def test_time_limit_raises_nothing_but_its_error_when_the_alarm_meets_the_blocks_end(
    microseconds: int,
) -> None:
    """Whenever the alarm comes, a block ends well or in the limit's error, and nothing is left."""
    for _ in range(ROUNDS):
        with suppress(LateError), Alarm(microseconds / 1e6, LateError):
            pass

    assert signal.getsignal(signal.SIGALRM) is signal.SIG_DFL
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


@pytest.mark.parametrize("microseconds", [5, 10, 20])
def test_nested_limits_raise_nothing_but_their_errors_when_both_alarms_meet(
    microseconds: int,
) -> None:
    """Of two alarms that come at about the same time neither is lost to the other's end."""
    inner, outer = microseconds / 1e6, microseconds / 0.9e6
    for _ in range(ROUNDS):
        with (
            suppress(LaterError),
            Alarm(outer, LaterError),
            suppress(LateError),
            Alarm(inner, LateError),
        ):
            pass

    assert signal.getsignal(signal.SIGALRM) is signal.SIG_DFL
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
