"""Cut a call that takes too long.

| where the call runs | how it is cut |
|---|---|
| coroutine | cancelled by `asyncio.timeout` |
| main thread (prefork child, solo worker, script) | SIGALRM unwinds the call |
| any other thread, gevent | not cut here: the client's own timeout is what ends it |
"""

import asyncio
import signal
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from types import FrameType
from typing import Any


def _alarms_reach_us() -> bool:
    # Under gevent a signal handler runs in whatever greenlet is current.
    return (
        threading.current_thread() is threading.main_thread() and "gevent.monkey" not in sys.modules
    )


class _Cut(BaseException):
    """Unwinds a block; code in it that handles `Exception` or `OSError` cannot keep it."""

    def __init__(self, alarm: "_Alarm") -> None:
        super().__init__(f"cut after {alarm.seconds:g} s")
        self.alarm = alarm


class _Alarm:
    """A SIGALRM that raises `_Cut`, at most once, in place of the one that was pending."""

    __slots__ = ("_outer_handler", "_outer_interval", "_outer_left", "_pending", "seconds")

    def __init__(self, seconds: float, outer_left: float, outer_interval: float) -> None:
        self.seconds = seconds
        self._outer_left = outer_left
        self._outer_interval = outer_interval
        self._outer_handler: Any = None
        self._pending = False

    def start(self) -> None:
        self._outer_handler = signal.signal(signal.SIGALRM, self._ring)
        self._pending = True
        signal.setitimer(signal.ITIMER_REAL, self.seconds)

    def stop(self) -> None:
        if self._pending:
            left, _ = signal.setitimer(signal.ITIMER_REAL, 0)
            self._hand_back(left)

    def _ring(self, _signum: int, _frame: FrameType | None) -> None:
        if self._pending:
            # At once, not when the block has ended: it may take long to clean up.
            self._hand_back(0.0)
            raise _Cut(self)

    def _hand_back(self, left: float) -> None:
        self._pending = False
        signal.signal(signal.SIGALRM, self._outer_handler)
        if self._outer_left:
            outer_left = self._outer_left - (self.seconds - left)
            signal.setitimer(signal.ITIMER_REAL, max(outer_left, 1e-6), self._outer_interval)


@contextmanager
def time_limit(seconds: float, error: Callable[[], BaseException]) -> Iterator[None]:
    """Raise *error()* once the block has run for *seconds*, whatever the block handles itself.

    Works in the main thread only and does nothing elsewhere. Nests: of two limits the one that ends
    first cuts, and an outer one goes on with what remains of it.
    """
    if not _alarms_reach_us():
        yield
        return
    outer_left, outer_interval = signal.getitimer(signal.ITIMER_REAL)
    if 0 < outer_left <= seconds:
        yield
        return
    alarm = _Alarm(seconds, outer_left, outer_interval)
    try:
        try:
            alarm.start()
            yield
        finally:
            alarm.stop()
    except _Cut as cut:
        if cut.alarm is not alarm:
            raise
        raise error() from cut


@asynccontextmanager
async def time_limit_async(
    seconds: float, error: Callable[[], BaseException]
) -> AsyncIterator[None]:
    """Raise *error()* once the block has run for *seconds*, and cancel what it awaits."""
    limit = asyncio.timeout(seconds)
    try:
        async with limit:
            yield
    except TimeoutError as late:
        if limit.expired():
            raise error() from late
        raise
