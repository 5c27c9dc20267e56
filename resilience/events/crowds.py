"""Events that come in crowds, as far as the log is concerned."""

from collections.abc import Callable
from typing import Final

from resilience.clock import SystemClock
from resilience.events.base import Event

LINE_SECONDS: Final = 1.0
"""Least time between two lines of a process about events of the same class that come in crowds, for
the same dependency, queue or source."""


class Crowds:
    """Picks the events that get a line in the log.

    No lock: two threads at once may both get a line, or one may not be counted.
    """

    def __init__(self, monotonic: Callable[[], float] = SystemClock.monotonic) -> None:
        """Know of no event yet."""
        self._monotonic = monotonic
        self._seen: dict[tuple[str, object], tuple[float, int]] = {}

    def pick(self, event: Event) -> int | None:
        """Return how many such events got no line since the last one; None: *event* gets none."""
        if not event.crowds:
            return 0
        names = ("dependency", "queue", "source")
        of = next((one for name in names if (one := getattr(event, name, None))), None)
        key = type(event).__name__, (of, getattr(event, "replica", None))
        now = self._monotonic()
        due, left_out = self._seen.get(key, (now, 0))
        if now < due:
            self._seen[key] = due, left_out + 1
            return None
        self._seen[key] = now + LINE_SECONDS, 0
        return left_out
