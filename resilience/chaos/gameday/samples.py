"""Samples the state of an app during a game day: level, circuits and queues."""

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
    """The state of an app at one moment.

    Attributes:
        at: Seconds from the beginning.
        level: Level of the app, as a number.
        breakers: State of the circuit of each dependency.
        waiting: Messages in all queues; None: the broker does not answer.
    """

    at: float
    level: int
    breakers: dict[str, str]
    waiting: int | None


def sample(adopted: Resilience, at: float) -> Sample:
    """Return the state of the app now, as far as this process knows it."""
    waiting = None
    with suppress(*AWAY):
        # No workers: asking them what they consume would take a second.
        waiting = sum(read_queues(adopted, QUEUE_SECONDS, workers={})["queues"].values())
    with suppress(ResilienceError):
        adopted.pulse.refresh()
    breakers = {name: adopted.breaker(name) for name in adopted.dependencies}
    states = {name: str(getattr(one, "state", "none")) for name, one in breakers.items()}
    return Sample(at=at, level=int(adopted.level), breakers=states, waiting=waiting)
