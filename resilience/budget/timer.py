"""Cut a block in the main thread by SIGALRM."""

import _signal  # type: ignore[import-not-found] # signal's own C half, which has no stub
import gc
import signal
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

from resilience.budget.locks import lock_at_stake

MOMENT_SECONDS = 1e-4
"""An alarm that rings where it must not raise rings again so much later."""
LOST_SECONDS = 0.01
"""And so on, until Python hears of it: no alarm ends a wait in C code that begins just after it."""
MOMENTS = 50
"""So often it does while a frame stays where a cut might leave a lock taken."""
AGAIN_SECONDS = 0.25
"""A block that goes on after its cut is cut again so much later, and so on until it ends. It may
clean up in between."""

_DEFAULT = int(signal.SIG_DFL)
# The functions under those of `signal`, which make enums of all they are given: 4 µs a call.
_set_handler: Callable[[int, Any], Any] = _signal.signal
_get_handler: Callable[[int], Any] = _signal.getsignal
_setitimer, _getitimer = signal.setitimer, signal.getitimer
_SIGALRM, _REAL = int(signal.SIGALRM), int(signal.ITIMER_REAL)


class Cut(BaseException):
    """Unwinds a block; code in it that handles `Exception` or `OSError` cannot keep it.

    Code that handles every `BaseException`, or stores it as a future does, meets the next cut.

    Attributes:
        limit: Whose block is to be unwound.
        error: Makes the error that the block ends in.
    """

    def __init__(self, limit: object, seconds: float, error: Callable[[], BaseException]) -> None:
        """Say that the block of *limit* took longer than *seconds*."""
        super().__init__(f"cut after {seconds:g} s")
        self.limit = limit
        self.error = error


def has_cut(limit: object, error: BaseException) -> bool:
    """Tell whether *error* is a cut of *limit*, or what the standard library made of it.

    A `TaskGroup` puts it into a group. A `Condition` that was cut after it gave its lock back fails
    to give it back again: a RuntimeError.
    """
    if isinstance(error, BaseExceptionGroup):
        return any(has_cut(limit, one) for one in error.exceptions)
    if type(error) is RuntimeError and error.__context__ is not None:
        return has_cut(limit, error.__context__)
    return isinstance(error, Cut) and error.limit is limit


class Alarm:
    """Raises *error()* once the block has run for *seconds*, whatever the block handles itself.

    A block that handles the cut is cut again until it ends, and what it returns then is no answer.

    For the main thread only. Nests: of two limits the one that ends first cuts, and an outer one
    goes on with what remains of it; a foreign timer's, too.

    It borrows the handler for the length of the block, as anybody may own it outside.
    """

    __slots__ = (
        "_armed",
        "_cut",
        "_error",
        "_outer_handler",
        "_outer_interval",
        "_outer_left",
        "_pending",
        "_seen",
        "seconds",
    )
    _seen: tuple[FrameType | None, int, int]

    def __init__(self, seconds: float, error: Callable[[], BaseException]) -> None:
        self.seconds = seconds
        self._error = error
        self._armed = seconds
        self._cut = False
        self._outer_left = self._outer_interval = 0.0

    def __enter__(self) -> None:
        self._outer_handler = _get_handler(_SIGALRM)
        self._pending = True
        try:
            _set_handler(_SIGALRM, self._ring)
            self._outer_left, self._outer_interval = _setitimer(_REAL, self.seconds)
        except BaseException:
            # Another signal's handler raised, and there will be no `__exit__`.
            self._stop()
            raise
        if self._outer_left:
            if self._outer_left <= self.seconds:
                self._stop()
        elif self._outer_handler and self._is_due():
            self._outer_left = MOMENT_SECONDS
            self._stop()

    def _is_due(self) -> bool:
        """Tell whether an outer one has run out just now, and its signal was not heard."""
        outer = getattr(self._outer_handler, "__self__", None)
        return isinstance(outer, Alarm) and outer._pending  # noqa: SLF001 - one of these

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._pending:
            self._pending = False
            left, _ = _setitimer(_REAL, 0.0)
            _set_handler(_SIGALRM, self._outer_handler or _DEFAULT)
            if self._outer_left:
                self._go_on(left)
        if self._cut and (error is None or has_cut(self, error)):
            raise self._error() from error

    def _stop(self) -> None:
        # First of all: an alarm that is on its way already finds that it is not wanted.
        self._pending = False
        left, _ = _setitimer(_REAL, 0.0)
        # A handler that was not set from Python reads as None and cannot be set again.
        _set_handler(_SIGALRM, self._outer_handler or _DEFAULT)
        if self._outer_left:
            self._go_on(left)

    def _ring(self, _signum: int, frame: FrameType | None) -> None:
        if not self._pending:
            return
        if _must_wait(frame) or self._waits_for_a_lock(frame):
            _, interval = _getitimer(_REAL)
            _setitimer(_REAL, MOMENT_SECONDS, interval or LOST_SECONDS)
            return
        self._cut = True
        self._seen = None, 0, 0
        if self._outer_left:
            self._outer_left = max(self._outer_left - self._armed, MOMENT_SECONDS)
        self._armed = AGAIN_SECONDS
        _setitimer(_REAL, AGAIN_SECONDS)
        if self._outer_left and self._outer_left <= AGAIN_SECONDS:
            self._stop()  # the outer one cuts the block next
        raise Cut(self, self.seconds, self._error)

    def _waits_for_a_lock(self, frame: FrameType | None) -> bool:
        """Tell whether a cut in *frame* should wait, as it might leave a lock taken.

        A frame that is seen at the same place `MOMENTS` times still waits for its lock.
        """
        if frame is None or not lock_at_stake(frame.f_code, frame.f_lasti):
            return False
        at = frame.f_lasti
        last_frame, last_at, times = getattr(self, "_seen", (None, 0, 0))
        times = times + 1 if last_frame is frame and last_at == at else 1
        self._seen = frame, at, times
        return times < MOMENTS

    def _go_on(self, left: float) -> None:
        """Let the outer timer go on, this one having had *left* seconds to go."""
        outer_left = self._outer_left - (self._armed - left)
        _setitimer(_REAL, max(outer_left, 1e-6), self._outer_interval)


def _must_wait(frame: FrameType | None) -> bool:
    """Tell whether what is raised in this code would do harm, or nothing.

    Harm where a limit takes or gives back the timer, also in what a tracer or another signal's
    handler does there: its block would never end. So where coverage holds the lock of its data.
    Nothing in a finaliser, as Python ignores it.
    """
    collecting = {getattr(callback, "__code__", None) for callback in gc.callbacks}
    while frame is not None:
        code, in_module = frame.f_code, frame.f_globals.get("__name__")
        if code in _BETWEEN or code in collecting:
            return True
        if code.co_name == "__del__" or in_module in _WITHOUT_A_CUT:
            return True
        frame = frame.f_back
    return False


_WITHOUT_A_CUT = {"weakref", "_weakrefset", "coverage.collector", "coverage.inorout"}
_BETWEEN = frozenset(
    method.__code__
    for name, method in vars(Alarm).items()
    if name in {"__enter__", "__exit__", "_is_due", "_ring", "_stop", "_go_on", "_waits_for_a_lock"}
)
"""Outside the block, as it has not begun or has ended: no `__exit__` turns what is raised here into
the limit's own error."""
