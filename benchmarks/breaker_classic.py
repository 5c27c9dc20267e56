"""A breaker as most packages have it: a count of failures, in one process."""

from collections import deque

from resilience.clock import Clock


class ClassicBreaker:
    """Opens for a fixed time at a count of failures, then lets one call decide.

    Attributes:
        openings: How often it opened, also after a probe that failed.
        closings: How often it closed.
    """

    def __init__(
        self, clock: Clock, *, failures: int, window_seconds: float | None, open_seconds: float
    ) -> None:
        """Count failures in a row, or all within *window_seconds*."""
        self._clock = clock
        self._most = failures
        self._window_seconds = window_seconds
        self._open_seconds = open_seconds
        self._failed: deque[float] = deque()
        self._open_until: float | None = None
        self._probing = False
        self.openings = self.closings = 0

    def enter(self) -> bool:
        """Tell whether a call may pass."""
        if self._open_until is None:
            return True
        if self._probing or self._clock.monotonic() < self._open_until:
            return False
        self._probing = True
        return True

    def leave(self, *, failed: bool) -> None:
        """Count how a call ended."""
        now = self._clock.monotonic()
        if self._probing:
            self._probing = False
            self._failed.clear()
            self._change(None if not failed else now + self._open_seconds)
        elif self._open_until is None:
            self._count(now, failed=failed)

    def _count(self, now: float, *, failed: bool) -> None:
        if failed:
            self._failed.append(now)
        elif self._window_seconds is None:
            self._failed.clear()
        if self._window_seconds is not None:
            while self._failed and self._failed[0] <= now - self._window_seconds:
                self._failed.popleft()
        if len(self._failed) >= self._most:
            self._change(now + self._open_seconds)

    def _change(self, open_until: float | None) -> None:
        self._open_until = open_until
        self.openings += open_until is not None
        self.closings += open_until is None
