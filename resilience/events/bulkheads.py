"""What became of queues."""

import logging
from dataclasses import dataclass
from typing import ClassVar

from resilience.events.base import Event


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueHeld(Event):
    """Somebody ordered to hold a queue, or a worker stopped to take jobs from its queues.

    Attributes:
        queue: Name of the dependency, for all its queues, or of a single queue.
        worker: Which one stopped; None: it is the order, for the whole fleet.
        reason: Why.
        actor: Who ordered it; `breaker`: the circuit refuses all calls.
        until: Fleet time at which it ends by itself, unless it is prolonged; None: open end.
    """

    severity: ClassVar[int] = logging.WARNING
    queue: str
    worker: str | None
    reason: str
    actor: str
    until: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueReleased(Event):
    """Somebody ended the order to hold a queue, or a worker takes jobs again.

    Attributes:
        queue: Name of the dependency, for all its queues, or of a single queue.
        worker: Which one takes jobs; None: it is the order, for the whole fleet.
        reason: Why.
        actor: Who ordered it; for a worker, who had ordered to hold it.
        until: Fleet time at which the hold would have ended; None: open end.
    """

    severity: ClassVar[int] = logging.WARNING
    queue: str
    worker: str | None
    reason: str
    actor: str
    until: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRefused(Event):
    """A job was not published, as too many wait for its dependency.

    Attributes:
        task: Name of its task.
        dependency: Whose queues are full.
        depth: Jobs in its lanes, as far as the publisher knows.
        max_queue: How many there may be.
        lane: Where it would have gone; the less critical ones are full sooner.
    """

    severity: ClassVar[int] = logging.WARNING
    crowds: ClassVar[bool] = True
    task: str
    dependency: str
    depth: int
    max_queue: int
    lane: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BulkheadFull(Event):
    """A call was refused, as no slot came free while it could wait.

    Attributes:
        dependency: Whose slots.
        slots: How many there are.
        waited: Seconds it waited.
    """

    severity: ClassVar[int] = logging.WARNING
    crowds: ClassVar[bool] = True
    dependency: str
    slots: int
    waited: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotLost(Event):
    """A running call had no slot any more, so one too many may have run.

    Its process did not renew it in time (stopped, starved, cut off), or the store forgot it.

    Attributes:
        dependency: Whose slot.
        retaken: Whether there was room to count the call again.
    """

    severity: ClassVar[int] = logging.ERROR
    dependency: str
    retaken: bool
