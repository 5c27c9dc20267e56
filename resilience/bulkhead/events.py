"""What happens to slots."""

import logging
from dataclasses import dataclass
from typing import ClassVar

from resilience.events import Event


@dataclass(frozen=True, slots=True, kw_only=True)
class BulkheadFull(Event):
    """A call was refused, as no slot came free while it could wait.

    Attributes:
        dependency: Whose slots.
        slots: How many there are.
        waited: Seconds it waited.
    """

    severity: ClassVar[int] = logging.WARNING
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
