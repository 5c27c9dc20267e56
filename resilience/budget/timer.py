"""Cut a call that takes too long.

| where the call runs | how it is cut |
|---|---|
| coroutine | cancelled by `asyncio.timeout` |
| main thread (prefork child, solo worker, script) | SIGALRM raises inside the call |
| any other thread, gevent | not cut here: the client's own timeout is what ends it |
"""

import asyncio
import signal
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from types import FrameType


def _alarms_reach_us() -> bool:
    # Under gevent a signal handler runs in whatever greenlet is current.
    return (
        threading.current_thread() is threading.main_thread() and "gevent.monkey" not in sys.modules
    )


@contextmanager
def time_limit(seconds: float, error: Callable[[], BaseException]) -> Iterator[None]:
    """Raise *error()* inside the block once it has run for *seconds*.

    Works in the main thread only and does nothing elsewhere. Nests: the alarm of an outer limit
    is put back with what remains of it.
    """
    if not _alarms_reach_us():
        yield
        return
    armed = True

    def ring(_signum: int, _frame: FrameType | None) -> None:
        if armed:
            raise error()

    outer_handler = signal.signal(signal.SIGALRM, ring)
    outer_left, _ = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        try:
            yield
        finally:
            # The alarm rings at most once, so whatever it interrupts, the next line still runs.
            armed = False
    finally:
        armed = False
        left, _ = signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, outer_handler)
        if outer_left:
            spent = seconds - left
            signal.setitimer(signal.ITIMER_REAL, max(outer_left - spent, 1e-6))


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
