"""Keeps what a worker's main process knows of circuits and orders fresh, beside its event loop."""

from resilience.clock import SystemClock
from resilience.pulse import PULSE_SECONDS
from resilience.tasks.resilience import Resilience
from resilience.worker.beside import BesideWorker

ORDERS_SECONDS = 1.0
"""How often a worker asks which queues somebody ordered to be held."""


class Lookout(BesideWorker):
    """Asks the store, so that the gate, which runs in the event loop, never has to.

    One small exchange a second, and one more in an app with features, or four in a worker of
    dependencies that hold jobs: others admit nothing in this process, and ask only for orders,
    which the thread of `FanInSweeper` does along with its own exchange.
    """

    thread_name = "lookout"
    _ask_at = float("-inf")
    _pulse_seconds: float | None = None

    def wanted(self, resilience: Resilience) -> bool:
        """Tell whether there is a store to ask, and more than orders to ask for."""
        if resilience.why_no_store is None:
            self._pulse_seconds = pulse_seconds(resilience)
        return self._pulse_seconds is not None

    def look(self, resilience: Resilience) -> float:
        """Ask; return the seconds until the next look."""
        now = SystemClock.monotonic()
        if now >= self._ask_at:
            self._ask_at = now + ORDERS_SECONDS
            resilience.holds.look()
        resilience.pulse.beat(now)
        return self._pulse_seconds or ORDERS_SECONDS


def pulse_seconds(resilience: Resilience) -> float | None:
    """Return how often the main process of a worker needs the circuits; None: never."""
    served = resilience.app.amqp.queues.consume_from
    holds = any(
        one.on_open == "hold" and any(queue in served for queue in one.queues)
        for one in resilience.dependencies.values()
    )
    if holds:
        return PULSE_SECONDS
    return ORDERS_SECONDS if resilience.features else None  # their rules ask for open circuits
