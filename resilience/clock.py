"""The only place that reads time."""

import time
from typing import Protocol


class Clock(Protocol):
    """Where the library gets time from; tests hand in their own."""

    def now(self) -> float:
        """Return seconds since the epoch. May jump when the host's clock is set."""
        ...

    def monotonic(self) -> float:
        """Return seconds since an arbitrary moment. Never goes back."""
        ...


class SystemClock:
    """The clock of this host."""

    __slots__ = ()

    # The functions themselves: a method around them would cost a call more.
    now = staticmethod(time.time)
    monotonic = staticmethod(time.monotonic)
