"""Events that come in crowds, as far as the log is concerned."""

from collections.abc import Callable
from typing import Final

from resilience.clock import SystemClock
from resilience.events.base import Event

LINE_SECONDS: Final = 1.0
"""A process writes one line so often for each kind of event that comes in crowds, and each
dependency, queue or source that it is about."""


class Crowds:
    """Picks the events that the log tells of.

    No lock: two threads at once may both get a line, or one may not be counted.
    """

    def __init__(self, monotonic: Callable[[], float] = SystemClock.monotonic) -> None:
        """Know of no event yet."""
        self._monotonic = monotonic
        self._seen: dict[tuple[str, object], tuple[float, int]] = {}

    def pick(self, event: Event) -> int | None:
        """Return how many like *event* were left out since the last line; None: leave it out."""
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
