"""Cut a call from another thread, again and again until it ends."""

import ctypes
import gc
import os
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from operator import attrgetter, call, itemgetter, methodcaller
from types import CodeType, FrameType
from typing import Any

from resilience.budget.locks import lock_at_stake
from resilience.budget.timer import AGAIN_SECONDS, MOMENT_SECONDS, Cut
from resilience.clock import SystemClock

LOOKS_MAX = 20
"""So many looks at which a lock is at stake does a cut make before the call is left to the next."""

_raise_in_thread = ctypes.pythonapi.PyThreadState_SetAsyncExc
_LOOPS_UNDER_A_TRACER = sys.version_info < (3, 12)
"""While a cut waits for a thread that is in C code, each traced thread of CPython 3.11 that calls a
function goes in circles there."""
_place = attrgetter("f_code", "f_lasti")
_starting: dict[threading.Thread, threading.Thread] = threading._limbo  # type: ignore[attr-defined]  # noqa: SLF001 - nothing else tells


class Interruptible:
    """One call, which another thread may cut as often as it takes.

    A cut arrives when the call next runs Python code: not while it waits in C code. None arrives
    once `call` has returned. One that meets a finaliser is lost, as Python ignores what is raised
    there; the next one is not. Under a debugger or a coverage tool on CPython 3.11 the call is
    left to itself.
    """

    __slots__ = ("_error", "_lock", "_looks_left", "_safe", "_thread", "cuts", "ended", "seconds")

    def __init__(self, seconds: float, error: Callable[[], BaseException]) -> None:
        """Describe a call that may take *seconds* and then ends in *error()*."""
        self.seconds = seconds
        self._error = error
        self._lock = threading.Lock()
        self._thread = 0
        self.cuts = 0
        self.ended = False

    def call(self, function: Callable[[], Any]) -> Any:  # noqa: ANN401 - what the function returns
        """Return `function()`.

        A cut that comes after the function has returned is only counted in `cuts`.

        Raises:
            Cut: The function was cut.
        """
        self._thread = threading.get_ident()
        try:
            try:
                return function()
            finally:
                self._end()
        except Cut:
            self._end()  # the cut may have come before the one above began
            raise

    def cut(self) -> None:
        """Cut the call, if it has begun and not ended.

        Until a new thread first runs, CPython gives it the id of the thread that starts it. A cut
        would hit the new thread, and the thread that starts it would wait without end. So no cut is
        made while any thread is being started. After `AGAIN_SECONDS` the cut is made all the
        same, unless the call itself is starting a thread: it is then left to the next cut. So is a
        call that is seen only where a cut might leave a lock taken.
        """
        self._looks_left = LOOKS_MAX
        self._safe: set[tuple[CodeType, int]] = set()
        kind = ctypes.py_object(_kind_of(self, self.seconds, self._error))
        late = SystemClock.monotonic() + AGAIN_SECONDS
        while not self._cut(kind, at_last=SystemClock.monotonic() > late):
            threading.Event().wait(MOMENT_SECONDS)

    def _cut(self, kind: "ctypes.py_object[type[Cut]]", *, at_last: bool) -> bool:
        """Try once; return whether this cut is over: made, or left to the next."""
        with self._lock:
            if not self._thread or self.ended:
                return True
            cut_anyway = at_last and not self._starts_a_thread()
            is_left_alone = _LOOPS_UNDER_A_TRACER and _is_traced()
            raised = not is_left_alone and self._raise(kind, anyway=cut_anyway)
            if not (is_left_alone or raised or at_last or not self._looks_left):
                return False
            self.cuts += 1  # also of one that is left to the next: its time is up all the same
            return True

    def _raise(self, kind: "ctypes.py_object[type[Cut]]", *, anyway: bool) -> bool:
        """Raise the cut in the call if that is safe now; return whether it was raised.

        The first look judges where the thread stands, which takes time. The second look and the cut
        are C code, between which no other thread runs: Python changes threads only where it calls
        or jumps back. The cut is made if the thread then stands where it was judged to be safe.
        """
        thread = ctypes.c_ulong(self._thread)
        place = next(self._places())
        if lock_at_stake(*place):
            self._looks_left -= 1
        else:
            self._safe.add(place)
        for _ in filter(self._safe.__contains__, islice(self._places(), 1)):
            if anyway or not _starting:
                _raise_in_thread(thread, kind)
                return True
        return False

    def _places(self) -> Iterator[tuple[CodeType, int]]:
        """Yield the place at which the thread of the call stands; each step looks again."""
        return map(_place, map(methodcaller("get", self._thread), _frames()))

    def _starts_a_thread(self) -> bool:
        frame = next(_frames()).get(self._thread)
        while frame is not None and frame.f_code is not threading.Thread.start.__code__:
            frame = frame.f_back
        return frame is not None

    def _end(self) -> None:
        while not self.ended:
            try:
                with self._lock:
                    self.ended = True
            except Cut:  # it came before its thread had the lock; none comes later
                continue


def _frames() -> Iterator[dict[int, FrameType]]:
    """Yield the frame of each thread as it is then.

    CPython 3.11 holds a lock while it makes those frames, and may collect garbage meanwhile. What
    that runs may wait for a thread that waits for the lock, and no thread would ever run again
    (https://github.com/python/cpython/issues/106883). So nothing is collected meanwhile; as all of
    a look is C code, no other thread runs and no cut comes before garbage is collected again.
    """
    pause, go_on = (gc.disable, gc.enable) if gc.isenabled() else (int, int)
    steps = (pause, sys._current_frames, go_on)  # noqa: SLF001 - documented
    return map(itemgetter(1), map(list, iter(partial(map, call, steps), None)))


def _is_traced() -> bool:
    return sys.gettrace() is not None or threading.gettrace() is not None


def _kind_of(limit: object, seconds: float, error: Callable[[], BaseException]) -> type[Cut]:
    """Return a class of cuts of *limit*: Python makes the exception itself, without arguments."""

    class Interrupt(Cut):
        def __init__(self) -> None:
            super().__init__(limit, seconds, error)

    return Interrupt


class Reaper:
    """Cuts what nobody waits for any longer, until it ends.

    Its thread runs only while there is something to cut.
    """

    def __init__(self) -> None:
        """Start with nothing to cut."""
        self._begin()
        os.register_at_fork(after_in_child=self._begin)

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._calls: list[Interruptible] = []

    def add(self, call: Interruptible) -> None:
        """Cut *call* now and every `AGAIN_SECONDS` until it has ended."""
        call.cut()
        with self._lock:
            self._calls.append(call)
            # The thread may not run: a cut may have met its maker before `start()`, or met the new
            # thread in place of its maker. A second one does no harm.
            if self._thread is not None and self._thread.is_alive():
                return
            self._thread = thread = threading.Thread(
                target=self._reap, name="resilience-reaper", daemon=True
            )
        thread.start()

    def _reap(self) -> None:
        pause = threading.Event()
        while True:
            pause.wait(AGAIN_SECONDS)
            with self._lock:
                self._calls = [one for one in self._calls if not one.ended]
                if not self._calls:
                    self._thread = None
                    return
                calls = list(self._calls)
            for one in calls:
                one.cut()


reaper = Reaper()
"""That of this process."""
