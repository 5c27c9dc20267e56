"""Cut a call that takes too long.

| where the call runs | how it is cut |
|---|---|
| coroutine | cancelled by `asyncio.timeout` |
| main thread (prefork child, solo worker, script) | SIGALRM unwinds the call |
| any other thread, gevent | not cut here: the client's own timeout is what ends it |
"""

import _signal  # type: ignore[import-not-found] # signal's own C half, which has no stub
import asyncio
import signal
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from types import FrameType, TracebackType
from typing import Any

MOMENT_SECONDS = 1e-4
"""An alarm that rings where it must not raise rings again so much later."""

_UNLIMITED: AbstractContextManager[None] = nullcontext()
_DEFAULT = int(signal.SIG_DFL)
# The functions under those of `signal`, which make enums of all they are given: 4 µs a call.
_set_handler: Callable[[int, Any], Any] = _signal.signal
_get_handler: Callable[[int], Any] = _signal.getsignal
_setitimer, _getitimer = signal.setitimer, signal.getitimer
_SIGALRM, _REAL = int(signal.SIGALRM), int(signal.ITIMER_REAL)


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
    """A SIGALRM that raises `_Cut`, at most once, in place of the one that was pending.

    It borrows the handler for the length of the block, as anybody may own it outside.
    """

    __slots__ = (
        "_error",
        "_outer_handler",
        "_outer_interval",
        "_outer_left",
        "_pending",
        "seconds",
    )

    def __init__(self, seconds: float, error: Callable[[], BaseException]) -> None:
        self.seconds = seconds
        self._error = error
        self._outer_left = self._outer_interval = 0.0

    def __enter__(self) -> None:
        self._outer_handler = _get_handler(_SIGALRM)
        self._pending = True
        try:
            _set_handler(_SIGALRM, self.ring)
            self._outer_left, self._outer_interval = _setitimer(_REAL, self.seconds)
        except BaseException:
            # Another signal's handler raised, and there will be no `__exit__`.
            self.stop()
            raise
        if 0 < self._outer_left <= self.seconds:
            self.stop()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._pending:
            self.stop()
        elif error.__class__ is _Cut and error.alarm is self:
            raise self._error() from error

    def stop(self) -> None:
        # First of all: an alarm that is on its way already finds that it is not wanted.
        self._pending = False
        left, _ = _setitimer(_REAL, 0.0)
        self.hand_back(left)

    def ring(self, _signum: int, frame: FrameType | None) -> None:
        if not self._pending:
            return
        if frame is not None and frame.f_code in _BETWEEN:
            _, interval = _getitimer(_REAL)
            _setitimer(_REAL, MOMENT_SECONDS, interval)
            return
        # At once, not when the block has ended: it may take long to clean up.
        self._pending = False
        self.hand_back(0.0)
        raise _Cut(self)

    def hand_back(self, left: float) -> None:
        # A handler that was not set from Python reads as None and cannot be set again.
        _set_handler(_SIGALRM, self._outer_handler or _DEFAULT)
        if self._outer_left:
            outer_left = self._outer_left - (self.seconds - left)
            _setitimer(_REAL, max(outer_left, 1e-6), self._outer_interval)


_BETWEEN = frozenset(
    method.__code__
    for method in (_Alarm.__enter__, _Alarm.__exit__, _Alarm.ring, _Alarm.stop, _Alarm.hand_back)
)
"""Outside the block, as it has not begun or has ended: no `__exit__` turns what is raised here into
the limit's own error."""


def time_limit(seconds: float, error: Callable[[], BaseException]) -> AbstractContextManager[None]:
    """Raise *error()* once the block has run for *seconds*, whatever the block handles itself.

    Works in the main thread only and does nothing elsewhere. Nests: of two limits the one that ends
    first cuts, and an outer one goes on with what remains of it.
    """
    return _Alarm(seconds, error) if _alarms_reach_us() else _UNLIMITED


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
