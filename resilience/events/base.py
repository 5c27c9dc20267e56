"""What happened, in past tense; listeners decide who hears of it."""

import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Final

from resilience.errors import text_of
from resilience.text import get_logger

logger = get_logger("resilience")

SOFT_LIMIT: Final = "SoftTimeLimitExceeded"
"""By name: whoever has no Celery needs no import of it."""
CUTS: Final = frozenset({"Cut", "GreenletExit", "Timeout"})
"""What ends a job from outside in any thread or greenlet: a budget, and gevent. By name as well."""
LONGEST_ERROR: Final = 1000
"""Characters of the text of a listener's error in the log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something an operator may want to know.

    Attributes:
        severity: The logging level at which it is worth a line.
        crowds: Whether thousands may come at once, of which the log tells one a second.
    """

    severity: ClassVar[int] = logging.INFO
    crowds: ClassVar[bool] = False

    def __init_subclass__(cls, *, severity: int | None = None, crowds: bool = False) -> None:
        """Take `severity` and `crowds` as options of the class statement."""
        # `slots` makes the class once more, without options: then they are attributes already.
        cls.severity = severity or cls.severity
        cls.crowds = crowds or cls.crowds

    def details(self) -> dict[str, Any]:
        """Return the event's own fields by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


Listener = Callable[[Event], None]
_everywhere: list[Listener] = []


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Let *listener* hear of all events of this process, of all apps, until the end of the block.

    Called by each thread that announces something. For tests; an app names its own listeners.
    """
    _everywhere.append(listener)
    try:
        yield
    finally:
        _everywhere.remove(listener)


def announce(event: Event, listeners: Iterable[Listener]) -> None:
    """Tell *listeners* of *event*, in order.

    A listener that raises is logged and left out: monitoring never fails the job it watches.

    Raises:
        SoftTimeLimitExceeded: The time of the job was up while a listener ran.
        BaseException: Something else ended the job meanwhile: its budget, gevent, or a signal.
    """
    for listener in (*listeners, *_everywhere):
        try:
            listener(event)
        except BaseException as error:
            if _strikes_the_job(error):
                raise
            shown = RuntimeError(f"{type(error).__name__}: {text_of(error)[:LONGEST_ERROR]!r}")
            name, info = type(event).__name__, (RuntimeError, shown, error.__traceback__)
            logger.error("listener %r failed on %s", listener, name, exc_info=info)  # noqa: TRY400 - the text is escaped


def _strikes_the_job(error: BaseException) -> bool:
    """Tell whether *error* is meant for the job, and only happened to find a listener running."""
    if isinstance(error, Exception):
        return type(error).__name__ == SOFT_LIMIT
    # A signal handler may raise anything, and runs in the main thread.
    in_main_thread = threading.current_thread() is threading.main_thread()
    return in_main_thread or not CUTS.isdisjoint(kind.__name__ for kind in type(error).__mro__)
