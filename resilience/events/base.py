"""What happened, in past tense; listeners decide who hears of it."""

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from typing import Any, ClassVar

logger = logging.getLogger("resilience")


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
    """
    for listener in listeners:
        try:
            listener(event)
        except Exception:
            logger.exception("listener %r failed on %s", listener, type(event).__name__)
