"""Calls of a dependency that fails by plan, in simulated time: minutes pass in a second.

Only the clock and the dependency are simulated: the breakers are those of the library, each with a
pulse of its own, and meet in one `MemoryFleet`.
"""

import contextvars
import heapq
import itertools
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, cast

from benchmarks.breaker_classic import ClassicBreaker
from resilience.breaker import Breaker, BreakerPolicy
from resilience.errors import CircuitOpenError
from resilience.events import CircuitClosed, CircuitOpened, Event
from resilience.pulse import Pulse
from resilience.store.fleet import StoreFleet
from resilience.store.memory import MemoryFleet

CALLS_PER_SECOND = 930.0
LATENCY_SECONDS = 0.02


class SimulatedClock:
    """Time that moves when the simulation moves it."""

    def __init__(self) -> None:
        """Begin at some moment."""
        self.at = 1000.0

    def now(self) -> float:
        """Return simulated seconds."""
        return self.at

    def monotonic(self) -> float:
        """Return the same."""
        return self.at


class Guard(Protocol):
    """The breaker of one process, as the simulation sees it."""

    def begin(self) -> Callable[[bool], None] | None:
        """Return what to tell whether the call failed; None: it is refused."""
        ...


class Fleet(Protocol):
    """The breakers of all processes."""

    @property
    def guards(self) -> Sequence[Guard]:
        """One for each process."""
        ...

    @property
    def openings(self) -> int:
        """How often a circuit opened so far."""
        ...

    @property
    def closings(self) -> int:
        """How often one closed."""
        ...


class SharedFleet:
    """Processes that share a circuit."""

    def __init__(self, clock: SimulatedClock, processes: int, policy: BreakerPolicy) -> None:
        """Let *processes* meet."""
        store = cast("StoreFleet", MemoryFleet(clock=clock))
        self.openings = self.closings = 0
        self.guards = [
            _SharedGuard(
                Breaker(
                    "simulated",
                    Pulse(store, clock=clock),
                    policy,
                    listeners=[self._hear],
                    clock=clock,
                    dice=random.Random(number),  # noqa: S311 - to be repeated
                )
            )
            for number in range(processes)
        ]

    def _hear(self, event: Event) -> None:
        self.openings += isinstance(event, CircuitOpened)
        self.closings += isinstance(event, CircuitClosed)


class _SharedGuard:
    def __init__(self, breaker: Breaker) -> None:
        self._breaker = breaker

    def begin(self) -> Callable[[bool], None] | None:
        if self._breaker.refusal() is not None:
            return None
        context = contextvars.Context()  # a call's own, as calls overlap
        try:
            context.run(self._breaker.__enter__)
        except CircuitOpenError:
            return None
        return lambda failed: context.run(self._end, failed)

    def _end(self, failed: bool) -> None:  # noqa: FBT001 - handed to Context.run
        error = ConnectionError("simulated") if failed else None
        self._breaker.__exit__(type(error) if error else None, error, None)


class ClassicFleet:
    """Processes each of which has a classic breaker of its own."""

    def __init__(
        self,
        clock: SimulatedClock,
        processes: int,
        *,
        window_seconds: float | None,
        failures: int = 5,
        open_seconds: float = 60.0,
    ) -> None:
        """Give each of *processes* its breaker."""
        self._breakers = [
            ClassicBreaker(
                clock, failures=failures, window_seconds=window_seconds, open_seconds=open_seconds
            )
            for _ in range(processes)
        ]
        self.guards = [_ClassicGuard(breaker) for breaker in self._breakers]

    @property
    def openings(self) -> int:
        """How often one of them opened."""
        return sum(breaker.openings for breaker in self._breakers)

    @property
    def closings(self) -> int:
        """How often one of them closed."""
        return sum(breaker.closings for breaker in self._breakers)


class _ClassicGuard:
    def __init__(self, breaker: ClassicBreaker) -> None:
        self._breaker = breaker

    def begin(self) -> Callable[[bool], None] | None:
        if not self._breaker.enter():
            return None
        return lambda failed: self._breaker.leave(failed=failed)


@dataclass(slots=True)
class Tally:
    """What came of the calls that began in one phase.

    Attributes:
        calls: Calls.
        servable: Calls that the dependency would have served.
        served: Calls that it did serve.
        bad: Calls that reached it and failed.
        openings: Times that a circuit opened.
        closings: Times that one closed.
    """

    calls: int = 0
    servable: int = 0
    served: int = 0
    bad: int = 0
    openings: int = 0
    closings: int = 0

    @property
    def lost(self) -> float:
        """Share of servable calls that were refused."""
        return 1.0 - self.served / self.servable if self.servable else 0.0


@dataclass(frozen=True, slots=True)
class Phase:
    """So many seconds in which each call fails with this probability.

    Attributes:
        seconds: How long.
        failing: Probability that a call fails.
        broken: Processes all of whose calls fail: their host has lost its network.
    """

    seconds: float
    failing: float
    broken: int = 0


def simulate(
    fleet_of: Callable[[SimulatedClock], Fleet], phases: Sequence[Phase], *, seed: int
) -> list[Tally]:
    """Return one tally per phase."""
    clock, dice, order = SimulatedClock(), random.Random(seed), itertools.count()  # noqa: S311
    fleet = fleet_of(clock)
    running: list[tuple[float, int, Callable[[bool], None], bool]] = []
    tallies = []
    for phase in phases:
        tally = Tally(openings=-fleet.openings, closings=-fleet.closings)
        end = clock.at + phase.seconds
        arrival = clock.at + dice.expovariate(CALLS_PER_SECOND)
        while arrival < end:
            while running and running[0][0] <= arrival:
                clock.at, _, finish, failed = heapq.heappop(running)
                finish(failed)
            clock.at = arrival
            process = dice.randrange(len(fleet.guards))
            failed = dice.random() < phase.failing or process < phase.broken
            finish_or_none = fleet.guards[process].begin()
            tally.calls += 1
            tally.servable += not failed
            if finish_or_none is not None:
                tally.bad += failed
                tally.served += not failed
                ends = arrival + LATENCY_SECONDS
                heapq.heappush(running, (ends, next(order), finish_or_none, failed))
            arrival += dice.expovariate(CALLS_PER_SECOND)
        clock.at = end
        tally.openings += fleet.openings
        tally.closings += fleet.closings
        tallies.append(tally)
    return tallies
