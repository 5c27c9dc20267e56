"""What a process knows of the fleet's time, whatever its exchanges with the store take."""

from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilience.pulse import Pulse
from resilience.store import Store
from resilience.store.fleet import Question, StoreFleet
from resilience.store.memory import MemoryFleet
from tests.unit.hand_clock import HandClock

DRIFT = 0.001

AHEAD = 5_000.0
QUICK = (0.001, 0.001)
SLOW_BACK = (0.0, 1.0)
SLOW_THERE = (1.0, 0.0)

trips = st.lists(st.tuples(st.floats(0, 2), st.floats(0, 2), st.floats(0, 100)), min_size=1)


class Far(MemoryFleet):
    """A fleet to which a question, and the answer from it, take as long as the test says."""

    def __init__(self, clock: HandClock) -> None:
        """Answer at once, and be ahead."""
        super().__init__(clock=clock)
        self.hands = clock
        self.trip = (0.0, 0.0)
        self.set_ahead(AHEAD)

    def set_ahead(self, seconds: float) -> None:
        """Set the fleet's clock."""
        self.ahead = seconds
        self.adopt({}, seconds)

    def ask(self, question: Question) -> Any:  # noqa: ANN401 - by question
        """Answer when it has come here."""
        there, back = self.trip
        self.hands.advance(there)
        answer = super().ask(question)
        self.hands.advance(back)
        return answer


class Rig:
    """A process, and how wrong it is."""

    def __init__(self) -> None:
        """Know nothing yet."""
        self.clock = HandClock()
        self.fleet = Far(self.clock)
        self.pulse = Pulse(cast("StoreFleet", self.fleet), clock=self.clock)

    def exchange(self, there: float, back: float) -> float:
        """Send a pulse that takes so long; return by how many seconds the time is wrong."""
        self.fleet.trip = there, back
        now = self.pulse.refresh()
        return abs(now - self.clock.monotonic() - self.fleet.ahead)


@pytest.mark.parametrize("slow", [SLOW_BACK, SLOW_THERE])
def test_slow_exchange_leaves_the_time_that_a_quick_one_told(slow: tuple[float, float]) -> None:
    """A store or a host that is busy for a second takes nothing from anybody's budget."""
    rig = Rig()
    rig.exchange(*QUICK)

    assert rig.exchange(*slow) < 0.01


@pytest.mark.parametrize("slow", [SLOW_BACK, SLOW_THERE])
def test_quick_exchange_mends_what_a_slow_one_told(slow: tuple[float, float]) -> None:
    """The first pulse of a process may be the slowest."""
    rig = Rig()
    assert rig.exchange(*slow) == pytest.approx(0.5)

    assert rig.exchange(*QUICK) < 0.01


@pytest.mark.parametrize("trip", [QUICK, SLOW_BACK, SLOW_THERE])
@pytest.mark.parametrize("seconds", [3600.0, -3600.0, 1.6, -1.6])
def test_clock_that_was_set_is_believed_at_once(seconds: float, trip: tuple[float, float]) -> None:
    """After a failover the store's clock is another one; the next exchange tells so."""
    rig = Rig()
    rig.exchange(*QUICK)
    rig.fleet.set_ahead(AHEAD + seconds)

    assert rig.exchange(*trip) <= sum(trip) / 2 + 0.001


@given(trips)
def test_time_is_never_more_wrong_than_the_quickest_exchange_allows(
    taken: list[tuple[float, float, float]],
) -> None:
    """Half of what it took, and what clocks may have parted since."""
    rig, quickest = Rig(), float("inf")
    began = rig.clock.monotonic()
    for there, back, pause in taken:
        wrong = rig.exchange(there, back)
        quickest = min(quickest, (there + back) / 2)
        assert wrong <= quickest + DRIFT * (rig.clock.monotonic() - began) + 1e-6
        rig.clock.advance(pause)


class Booted(HandClock):
    """A clock of a host that has been up for a while: seconds since then, and since the epoch."""

    def now(self) -> float:
        """Return the seconds since the epoch."""
        return super().now() + 1_800_000_000


@pytest.mark.parametrize("url", [None, "redis://127.0.0.1:9/0"], ids=["none", "down"])
def test_before_any_store_has_answered_it_is_the_hosts_time(url: str | None) -> None:
    """Another process, which has a store, reads it in a job's deadline or in a web user's token."""
    clock = Booted()
    fleet = None if url is None else StoreFleet(Store(url, namespace="nowhere"))
    pulse = Pulse(fleet, clock=clock)
    for _ in range(2):
        assert pulse.time() == clock.now()
        assert pulse.refresh() == clock.now()
        clock.advance(90)
