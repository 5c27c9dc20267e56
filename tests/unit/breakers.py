"""Breakers on a clock that the test moves, and calls through them."""

import random
from collections.abc import Callable
from typing import NoReturn, TypeVar, cast

import pytest

from resilience import CircuitOpenError
from resilience.breaker import Breaker, BreakerPolicy
from resilience.events import Event
from resilience.pulse import Pulse
from resilience.store.fleet import StoreFleet
from resilience.store.memory import MemoryFleet
from tests.unit.calling import Listening
from tests.unit.hand_clock import HandClock

PULSE_SECONDS = 0.25

E = TypeVar("E", bound=Event)

HASTY = BreakerPolicy(minimum_calls=4, open_seconds=1.0, open_seconds_max=8.0, half_open_probes=2)
"""Opens at 2 failures of 4 calls, closes after 2 probes."""


class Steady(random.Random):
    """Dice that always show the same, so that no time is shortened."""

    def random(self) -> float:
        """Return the least there is."""
        return 0.0


class Rig:
    """One process's breaker, its pulse, its clock, and what it announced."""

    def __init__(
        self,
        policy: BreakerPolicy = HASTY,
        *,
        name: str = "users",
        fleet: MemoryFleet | None = None,
        clock: HandClock | None = None,
        dice: random.Random | None = None,
        neutral: tuple[type[BaseException], ...] = (),
    ) -> None:
        """Join *fleet*; None: there is nobody else."""
        self.clock = clock or HandClock()
        self.listening = Listening()
        self.pulse = Pulse(cast("StoreFleet | None", fleet), clock=self.clock)
        self.breaker = Breaker(
            name,
            self.pulse,
            policy,
            neutral=neutral,
            listeners=[self.listening],
            clock=self.clock,
            dice=dice or Steady(),
        )

    def succeed(self, times: int = 1) -> None:
        """Call something that answers."""
        for _ in range(times):
            self.breaker.call(str)

    def fail(self, times: int = 1, error: BaseException | None = None) -> None:
        """Call something that does not answer, or that raises *error*."""
        error = error or ConnectionError("gone")
        for _ in range(times):
            with pytest.raises(type(error)):
                self.breaker.call(raise_, error)

    def tell(self) -> None:
        """Let enough time pass for a pulse, and have it sent."""
        self.clock.advance(PULSE_SECONDS + 0.01)
        assert self.breaker.state

    def open(self) -> None:
        """Let calls fail until the circuit is open."""
        self.fail(self.breaker.policy.minimum_calls)
        self.tell()
        assert self.refused()

    def half_open(self) -> None:
        """Open the circuit and wait until it may be probed."""
        self.open()
        self.clock.advance(self.breaker.policy.open_seconds_max)

    def refused(self) -> bool:
        """Tell whether a call is refused; one that is not succeeds."""
        try:
            self.succeed()
        except CircuitOpenError:
            return True
        return False

    def heard(self, kind: type[E]) -> list[E]:
        """Return the events of that kind."""
        return [event for event in self.listening.heard if isinstance(event, kind)]


def raise_(error: BaseException) -> NoReturn:
    """Raise *error*."""
    raise error


def slow(clock: HandClock, seconds: float) -> Callable[[], None]:
    """Return a function that takes so long."""
    return lambda: clock.advance(seconds)
