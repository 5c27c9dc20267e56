"""What somebody orders a circuit to do."""

from collections.abc import Callable
from typing import Any

import pytest

from resilience import ConfigurationError
from resilience.breaker import State
from resilience.events import CircuitForced, CircuitHalfOpened, CircuitOpened
from resilience.store.memory import MemoryFleet
from tests.unit.breakers import Rig
from tests.unit.hand_clock import HandClock

WHO: dict[str, Any] = {"actor": "ann", "reason": "maintenance"}


def test_forced_open_circuit_refuses_until_the_order_expires() -> None:
    """Nothing passes, not even a probe, and the refusal says until when."""
    rig = Rig()

    rig.breaker.force_open(seconds=60, **WHO)

    refusal = rig.breaker.refusal()
    assert refusal is not None
    assert refusal.retry_after == pytest.approx(60, abs=0.01)
    assert rig.breaker.state is State.FORCED_OPEN
    rig.clock.advance(60)
    assert not rig.refused()
    assert rig.heard(CircuitForced) == [
        CircuitForced(dependency="users", order="forced_open", seconds=60, **WHO)
    ]


def test_forced_closed_circuit_lets_failures_through_until_the_order_expires() -> None:
    """An open circuit closes, stays so whatever fails, and opens by itself afterwards."""
    rig = Rig()
    rig.open()

    rig.breaker.force_closed(seconds=60, **WHO)
    rig.fail(20)
    rig.tell()
    rig.fail(20)
    assert len(rig.heard(CircuitOpened)) == 1
    rig.clock.advance(60)
    rig.fail(20)
    rig.tell()

    assert len(rig.heard(CircuitOpened)) == 2


def test_observed_circuit_announces_every_time_it_would_open() -> None:
    """A dry run shows each outage, refuses nothing, and leaves a closed circuit behind."""
    rig = Rig()
    rig.breaker.observe(seconds=3_600, **WHO)

    for _ in range(2):
        rig.fail(20)
        rig.tell()
        assert not rig.refused()
        rig.clock.advance(600)
    assert [event.observed for event in rig.heard(CircuitOpened)] == [True, True]

    rig.clock.advance(3_600)
    assert rig.breaker.state is State.CLOSED
    assert not rig.heard(CircuitHalfOpened)
    rig.open()
    assert [event.observed for event in rig.heard(CircuitOpened)] == [True, True, False]


def test_observed_circuit_announces_one_outage_once() -> None:
    """While it would be open it does not open again with every call that fails."""
    rig = Rig()
    rig.breaker.observe(seconds=3_600, **WHO)

    for _ in range(5):
        rig.fail(20)
        rig.clock.advance(0.03)
    assert rig.breaker.state is State.OBSERVED

    assert len(rig.heard(CircuitOpened)) == 1


def test_reset_closes_and_forgets() -> None:
    """After a reset a circuit is closed, without orders, and counts from nothing."""
    rig = Rig()
    rig.open()
    rig.breaker.force_open(seconds=60, **WHO)

    rig.breaker.reset(**WHO)

    assert not rig.refused()
    rig.fail(2)
    rig.tell()
    assert rig.breaker.state is State.CLOSED
    assert rig.heard(CircuitForced)[-1].order == "reset"


def test_order_reaches_the_fleet_with_who_and_why() -> None:
    """Every process obeys, and knows whom to ask."""
    clock = HandClock()
    fleet = MemoryFleet(clock=clock)
    first, second = (Rig(fleet=fleet, clock=clock) for _ in range(2))
    second.succeed()

    first.breaker.force_open(seconds=60, **WHO)
    clock.advance(0.3)

    assert second.refused()
    assert (second.breaker.circuit.actor, second.breaker.circuit.reason) == ("ann", "maintenance")
    assert not second.heard(CircuitForced)


def test_later_order_takes_the_place_of_an_earlier_one() -> None:
    """The last word holds."""
    clock = HandClock()
    fleet = MemoryFleet(clock=clock)
    first, second = (Rig(fleet=fleet, clock=clock) for _ in range(2))

    first.breaker.force_open(seconds=60, **WHO)
    second.breaker.force_closed(seconds=60, **WHO)
    first.tell()

    assert first.breaker.state is State.FORCED_CLOSED


@pytest.mark.parametrize("seconds", [0, -1, float("inf"), float("nan")])
def test_order_needs_an_end(seconds: float) -> None:
    """No order is for ever: somebody would forget it."""
    with pytest.raises(ConfigurationError, match="seconds must be more than 0"):
        Rig().breaker.force_open(seconds=seconds, **WHO)


@pytest.mark.parametrize("missing", ["actor", "reason"])
@pytest.mark.parametrize(
    "order",
    [
        lambda rig, who: rig.breaker.force_open(seconds=1, **who),
        lambda rig, who: rig.breaker.force_closed(seconds=1, **who),
        lambda rig, who: rig.breaker.observe(seconds=1, **who),
        lambda rig, who: rig.breaker.reset(**who),
    ],
    ids=["open", "closed", "observe", "reset"],
)
def test_order_needs_somebody_and_a_reason(
    missing: str, order: Callable[[Rig, dict[str, str]], None]
) -> None:
    """An order that nobody answers for is not given."""
    with pytest.raises(ConfigurationError, match="say who orders it and why"):
        order(Rig(), {**WHO, missing: " "})
