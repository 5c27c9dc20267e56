"""The state of a circuit as a function of what the fleet has agreed on and of the time."""

import pytest

from resilience.breaker import BreakerPolicy, Circuit, State
from resilience.breaker.state import opened, state_at, why_open
from resilience.store.fleet import Window
from tests.unit.breakers import HASTY, Steady

OPEN = {"attempt": 1, "until": 20.0}
SLOW = BreakerPolicy(failure_ratio=None, slow_seconds=1.0, slow_ratio=0.5, minimum_calls=4)


@pytest.mark.parametrize(
    ("circuit", "now", "state"),
    [
        (Circuit(), 9.0, State.CLOSED),
        (Circuit(manual_until=10.0), 9.0, State.CLOSED),
        (Circuit(attempt=1, until=20.0), 19.9, State.OPEN),
        (Circuit(attempt=1, until=20.0), 20.0, State.HALF_OPEN),
        (Circuit(manual=State.FORCED_OPEN, manual_until=10.0), 9.9, State.FORCED_OPEN),
        (Circuit(manual=State.FORCED_OPEN, manual_until=10.0), 10.0, State.CLOSED),
        (Circuit(**OPEN, manual=State.FORCED_CLOSED, manual_until=9.0), 8.9, State.FORCED_CLOSED),
        (Circuit(**OPEN, manual=State.FORCED_CLOSED, manual_until=9.0), 9.0, State.OPEN),
        (Circuit(**OPEN, manual=State.OBSERVED, manual_until=9.0), 8.9, State.OBSERVED),
        (Circuit(**OPEN, manual=State.OBSERVED, manual_until=9.0), 9.0, State.CLOSED),
    ],
)
def test_order_holds_until_its_time_is_up_and_then_what_calls_have_said(
    circuit: Circuit, now: float, state: State
) -> None:
    """A circuit that was only observed has not opened, whatever its calls have said."""
    assert state_at(circuit, now) is state


@pytest.mark.parametrize(
    ("until", "manual"), [(100.1, State.FORCED_CLOSED), (100.0, None), (99.9, None)]
)
def test_circuit_that_opens_keeps_an_order_that_still_holds(
    until: float, manual: State | None
) -> None:
    """It grows older by one change, and by one attempt."""
    circuit = Circuit(attempt=2, manual=State.FORCED_CLOSED, manual_until=until)

    after = opened(circuit, HASTY, 100.0, dice=Steady())

    assert after.manual is manual
    assert (after.generation, after.attempt, after.until) == (100_000_000, 3, 104.0)


def test_observed_circuit_would_open_for_the_first_time_each_time() -> None:
    """As it never refuses anybody, no attempt to close fails."""
    circuit = Circuit(attempt=5, manual=State.OBSERVED, manual_until=200.0)

    after = opened(circuit, HASTY, 100.0, dice=Steady())

    assert (after.manual, after.attempt, after.until) == (State.OBSERVED, 1, 101.0)


@pytest.mark.parametrize(
    ("policy", "window", "reason"),
    [
        (SLOW, Window(calls=4, slow=1, reporters=1), None),
        (SLOW, Window(calls=4, slow=2, reporters=1), "2 of 4 calls took over 1 s"),
        (BreakerPolicy(slow_seconds=None), Window(calls=20, slow=20, reporters=1), None),
    ],
)
def test_slow_calls_open_from_their_share_on(
    policy: BreakerPolicy, window: Window, reason: str | None
) -> None:
    """They count for nothing where the policy names no time."""
    assert why_open(window, policy) == reason


@pytest.mark.parametrize(("failures", "opens"), [(9, False), (10, True)])
def test_failures_in_a_row_outnumber_the_calls_of_a_tenth_of_a_second(
    failures: int, *, opens: bool
) -> None:
    """Of a fleet that makes a hundred calls a second, three may fail before the rest is heard."""
    policy = BreakerPolicy(failure_ratio=None, consecutive_failures=3, window_seconds=10)
    window = Window(calls=1_000, failed=failures, reporters=1, consecutive=failures)

    assert bool(why_open(window, policy)) is opens
