"""The store packs its counts; whatever it is told, they are those of the plain ones in memory."""

from typing import Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from resilience.store import Store
from resilience.store.fleet import Evidence, Exchange, Reply, StoreFleet
from resilience.store.memory import MemoryFleet
from resilience.testing.valkey import ValkeyProcess
from tests.unit.hand_clock import HandClock

SECONDS = 120
COUNTS = st.integers(0, 5)
EVIDENCE = st.builds(
    Evidence,
    name=st.sampled_from(["users", "orders"]),
    generation=st.just(0),
    # What a longer window keeps, a shorter one forgets: as if time had passed.
    window_seconds=st.sampled_from([100, 200, 300]),
    ok=COUNTS,
    failed=COUNTS,
    failed_age=st.integers(0, 400).map(float),
    slow=COUNTS,
    tail=COUNTS,
)
TOLD = st.tuples(st.sampled_from(["one", "two", "three"]), EVIDENCE)


class Turned(HandClock):
    """A clock that is set to the store's time."""

    def turn(self, seconds: float) -> None:
        """Show *seconds*."""
        self.advance(seconds - self.now())


@pytest.fixture
def store(valkey: ValkeyProcess) -> Any:  # noqa: ANN401 - a fixture
    """A store."""
    made = Store(valkey.url, namespace=uuid4().hex, timeout_seconds=SECONDS)
    yield made
    made.client.close()


@settings(max_examples=60, suppress_health_check=list(HealthCheck), deadline=None)
@given(told=st.lists(TOLD, min_size=1, max_size=12))
def test_windows_in_the_store_are_those_in_memory(
    store: Store, told: list[tuple[str, Evidence]]
) -> None:
    """Old evidence in any order, several processes, windows of any length: the same sums."""
    clock = Turned()
    packed, plain = StoreFleet(store), MemoryFleet(clock=clock)
    store.client.delete(store.key("windows"))

    for process, seen in told:
        question = Exchange(process=process, evidence=[seen])
        answer: Reply = packed.ask(question)
        clock.turn(answer.now)
        expected: Reply = plain.ask(question)
        assert answer.windows == expected.windows
