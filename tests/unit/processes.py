"""One process of a fleet, on a real store."""

from contextlib import suppress
from uuid import uuid4

from resilience import CircuitOpenError
from resilience.breaker import Breaker, BreakerPolicy
from resilience.events import StoreFound, StoreLost
from resilience.pulse import Pulse
from resilience.store import Store
from resilience.store.fleet import StoreFleet
from resilience.testing.waiting import wait_until
from tests.unit.breakers import raise_
from tests.unit.calling import Listening

SECONDS = 120
LONG = BreakerPolicy(minimum_calls=4, open_seconds=30.0, open_seconds_max=60.0)


class Process:
    """What one process has: a store, a pulse, a breaker."""

    def __init__(self, url: str, policy: BreakerPolicy = LONG, *, namespace: str = "") -> None:
        """Join the fleet of *namespace*; empty: a fleet of its own."""
        self.listening = Listening()
        self.store = Store(url, namespace=namespace or uuid4().hex, listeners=[self.listening])
        self.pulse = Pulse(StoreFleet(self.store))
        self.breaker = Breaker("users", self.pulse, policy, listeners=[self.listening])

    def fail(self, times: int = 4) -> None:
        """Let calls fail."""
        for _ in range(times):
            with suppress(ConnectionError, CircuitOpenError):
                self.breaker.call(raise_, ConnectionError("gone"))

    def refused(self) -> bool:
        """Tell whether calls are refused."""
        return self.breaker.refusal() is not None

    def open(self) -> None:
        """Let calls fail until the circuit is open."""
        self.fail()
        wait_until(self.refused, SECONDS, "the circuit is open")

    def open_for_all(self) -> None:
        """Let calls fail until the circuit of the fleet is open: a slow store has it open alone."""

        def opened() -> bool:
            self.fail()
            return self.refused() and self.pulse.scope == "fleet"

        wait_until(opened, SECONDS, "the circuit of the fleet is open")

    def kinds(self) -> list[str]:
        """Return the names of the events about the store, in order."""
        heard = self.listening.heard
        return [
            type(event).__name__ for event in heard if isinstance(event, StoreLost | StoreFound)
        ]
