"""What became of queues."""

import logging
from dataclasses import dataclass

from resilience.events.base import Event


@dataclass(frozen=True, slots=True, kw_only=True)
class _Hold:
    """What the events of a hold say.

    Attributes:
        queue: Name of the dependency, for all its queues, or of a single queue.
        worker: Which worker stopped, or takes jobs again; None: it is the order, for the fleet.
        reason: Why.
        actor: Who ordered it, for a worker the hold; `breaker`: the circuit refuses all calls.
        until: Fleet time at which the hold ends, or would have ended, by itself; None: open end.
    """

    queue: str
    worker: str | None
    reason: str
    actor: str
    until: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueHeld(_Hold, Event, severity=logging.WARNING):
    """Somebody ordered to hold a queue, or a worker stopped to take jobs from its queues."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueReleased(_Hold, Event, severity=logging.WARNING):
    """Somebody ended the order to hold a queue, or a worker takes jobs again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRefused(Event, severity=logging.WARNING, crowds=True):
    """A job was not published, as too many wait for its dependency.

    Attributes:
        task: Name of its task.
        dependency: Whose queues are full.
        depth: Jobs in its lanes, as far as the publisher knows.
        max_queue: How many there may be.
        lane: Where it would have gone; the less critical ones are full sooner.
    """

    task: str
    dependency: str
    depth: int
    max_queue: int
    lane: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BulkheadFull(Event, severity=logging.WARNING, crowds=True):
    """A call was refused, as no slot came free while it could wait.

    Attributes:
        dependency: Whose slots.
        slots: How many there are.
        waited: Seconds it waited.
    """

    dependency: str
    slots: int
    waited: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotLost(Event, severity=logging.ERROR):
    """A running call had no slot any more, so one too many may have run.

    Its process did not renew it in time (stopped, starved, cut off), or the store forgot it.

    Attributes:
        dependency: Whose slot.
        retaken: Whether there was room to count the call again.
    """

    dependency: str
    retaken: bool
