"""Events as lines of the log."""

import logging

from resilience.events.base import Event
from resilience.events.crowds import Crowds
from resilience.levels import Level

logger = logging.getLogger("resilience")
_crowds = Crowds()


def log_event(event: Event) -> None:
    """Listen by writing one structured log line to the logger `resilience`.

    The message reads `AnswerDegraded dependency=users level=1 …`; the fields are also in the
    record's `event` attribute for formatters that write JSON. Of events that come in crowds it
    writes one a second for each dependency, queue or source; `left_out` counts those before it that
    have no line.
    """
    if not logger.isEnabledFor(event.severity):
        return
    left_out = _crowds.pick(event)
    if left_out is None:
        return
    details = {**event.details(), **({"left_out": left_out} if left_out else {})}
    text = " ".join(f"{name}={_plain(value)}" for name, value in details.items())
    name = type(event).__name__
    logger.log(event.severity, "%s %s", name, text, extra={"event": {"name": name, **details}})


def _plain(value: object) -> object:
    if isinstance(value, str) and not value.isprintable():
        return repr(value)  # a client's error of several lines stays one line of the log
    return value.name if isinstance(value, Level) else value
