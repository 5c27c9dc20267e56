"""What a circuit makes of failures while it has not heard of all successes yet."""

import pytest

from resilience.breaker import BreakerPolicy, State
from resilience.breaker.state import why_open
from resilience.events import CircuitOpened
from resilience.store.fleet import Window
from resilience.store.memory import MemoryFleet
from tests.unit.breakers import HASTY, Rig
from tests.unit.hand_clock import HandClock

STEP_SECONDS = 0.05


def just_closed(policy: BreakerPolicy = HASTY, processes: int = 1) -> list[Rig]:
    """Return processes whose circuit has closed this very moment."""
    clock = HandClock()
    fleet = MemoryFleet(clock=clock)
    rigs = [Rig(policy, fleet=fleet, clock=clock) for _ in range(processes)]
    rigs[0].half_open()
    rigs[0].succeed(policy.half_open_probes)
    for rig in rigs:
        assert rig.breaker.state is State.CLOSED
    return rigs


def opened(rigs: list[Rig]) -> int:
    """Return how often the circuit of *rigs* has opened."""
    return sum(len(rig.heard(CircuitOpened)) for rig in rigs)


def test_circuit_that_has_just_closed_waits_for_what_others_see() -> None:
    """The failures of one process open nothing before the others had half a second to report."""
    rigs = first, second = just_closed(processes=2)
    second.succeed(20)
    first.fail(8)
    first.pulse.refresh()
    assert opened(rigs) == 1

    second.tell()
    for _ in range(4):
        first.fail(1)
        first.tell()
        second.succeed(20)
        second.tell()

    assert opened(rigs) == 1


@pytest.mark.parametrize(("seconds", "opens"), [(0.48, False), (0.52, True)])
def test_circuit_that_has_just_closed_may_open_half_a_second_later(
    seconds: float, *, opens: bool
) -> None:
    """The pause after a closing is half a second, and no longer."""
    rigs = [rig] = just_closed()
    rig.clock.advance(seconds)

    rig.fail(4)
    rig.pulse.refresh()

    assert opened(rigs) == 1 + opens


@pytest.mark.parametrize(("row", "opens"), [(99, False), (100, True)])
def test_failures_in_a_row_must_outnumber_the_calls_of_a_tenth_of_a_second(
    row: int, *, opens: bool
) -> None:
    """At 1,000 calls per second, 100 failures in a row open a circuit, and not the declared 20."""
    window = Window(calls=10_000, failed=row, consecutive=row, reporters=1)

    assert bool(why_open(window, BreakerPolicy(consecutive_failures=20))) is opens


@pytest.mark.parametrize("closed_now", [False, True], ids=["closed-long-ago", "just-closed"])
def test_lone_broken_host_does_not_open_the_circuit_of_all(*, closed_now: bool) -> None:
    """A tenth of all calls fails, all on one host, dozens in a row: the others are not refused."""
    rigs = broken, *others = just_closed(BreakerPolicy(), processes=10)
    before = opened(rigs)
    for step in range(400):
        for rig in others:
            rig.succeed(10)
        if closed_now or step >= 200:
            broken.fail(10)
        broken.clock.advance(STEP_SECONDS)

    assert opened(rigs) == before == 1
