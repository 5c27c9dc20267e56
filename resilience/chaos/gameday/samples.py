"""What an app is like at a moment of the game day: level, circuits and queues."""

from contextlib import suppress
from dataclasses import dataclass

from resilience.errors import ResilienceError
from resilience.monitor.queues import read_queues
from resilience.monitor.status import AWAY
from resilience.tasks.resilience import Resilience

QUEUE_SECONDS = 0.3
"""Longest wait for the broker."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A moment.

    Attributes:
        at: Seconds from the beginning.
        level: Number of the level of the app.
        breakers: State of each circuit.
        waiting: Messages in all queues; None: the broker does not answer.
    """

    at: float
    level: int
    breakers: dict[str, str]
    waiting: int | None


def sample(adopted: Resilience, at: float) -> Sample:
    """Return what *adopted* is like now, as far as this process knows."""
    waiting = None
    with suppress(*AWAY):
        # Nobody asks workers what they consume: that would take a second.
        waiting = sum(read_queues(adopted, QUEUE_SECONDS, workers={})["queues"].values())
    with suppress(ResilienceError):
        adopted.pulse.refresh()
    breakers = {name: adopted.breaker(name) for name in adopted.dependencies}
    states = {name: str(getattr(one, "state", "none")) for name, one in breakers.items()}
    return Sample(at=at, level=int(adopted.level), breakers=states, waiting=waiting)
