"""What happened, in past tense; listeners decide who hears of it."""

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from typing import Any, ClassVar

logger = logging.getLogger("resilience")

SOFT_LIMIT = "SoftTimeLimitExceeded"
"""By name: whoever has no Celery needs no import of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something an operator may want to know.

    Attributes:
        severity: The logging level at which it is worth a line.
        crowds: Whether thousands may come at once, of which the log tells one a second.
    """

    severity: ClassVar[int] = logging.INFO
    crowds: ClassVar[bool] = False

    def details(self) -> dict[str, Any]:
        """Return the event's own fields by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


Listener = Callable[[Event], None]


def announce(event: Event, listeners: Iterable[Listener]) -> None:
    """Tell *listeners* of *event*, in order.

    A listener that raises is logged and left out: monitoring never fails the job it watches.

    Raises:
        SoftTimeLimitExceeded: The time of the job was up while a listener ran.
    """
    for listener in listeners:
        try:
            listener(event)
        except Exception as error:
            if type(error).__name__ == SOFT_LIMIT:  # it may strike anywhere, and is the job's
                raise
            logger.exception("listener %r failed on %s", listener, type(event).__name__)
