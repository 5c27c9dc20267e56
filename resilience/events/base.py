"""What happened, in past tense; listeners decide who hears of it."""

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from resilience.levels import Level

logger = logging.getLogger("resilience")


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something an operator may want to know.

    Attributes:
        severity: The logging level at which it is worth a line.
    """

    severity: ClassVar[int] = logging.INFO

    def details(self) -> dict[str, Any]:
        """Return the event's own fields by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


Listener = Callable[[Event], None]


def log_event(event: Event) -> None:
    """Listen by writing one structured log line to the logger `resilience`.

    The message reads `AnswerDegraded dependency=users level=1 …`; the fields are also in the
    record's `event` attribute for formatters that write JSON.
    """
    if not logger.isEnabledFor(event.severity):
        return
    details = event.details()
    text = " ".join(f"{name}={_plain(value)}" for name, value in details.items())
    name = type(event).__name__
    logger.log(event.severity, "%s %s", name, text, extra={"event": {"name": name, **details}})


def _plain(value: object) -> object:
    if isinstance(value, str) and not value.isprintable():
        return repr(value)  # a client's error of several lines stays one line of the log
    return value.name if isinstance(value, Level) else value


def announce(event: Event, listeners: Iterable[Listener]) -> None:
    """Tell *listeners* of *event*, in order.

    A listener that raises is logged and left out: monitoring never fails the job it watches.
    """
    for listener in listeners:
        try:
            listener(event)
        except Exception:
            logger.exception("listener %r failed on %s", listener, type(event).__name__)
