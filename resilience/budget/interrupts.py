"""Cut a call from another thread, again and again until it ends."""

import ctypes
import os
import threading
from collections.abc import Callable
from typing import Any

from resilience.budget.timer import AGAIN_SECONDS, Cut

_raise_in_thread = ctypes.pythonapi.PyThreadState_SetAsyncExc


class Interruptible:
    """One call, which another thread may cut as often as it takes.

    A cut arrives when the call next runs Python code: not while it waits in C code. None arrives
    once `call` has returned. One that meets a finaliser is lost, as Python ignores what is raised
    there; the next one is not.
    """

    __slots__ = ("_error", "_lock", "_thread", "cuts", "ended", "seconds")

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

        Raises:
            Cut: It was cut.
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
        """Cut the call, if it has begun and not ended."""
        with self._lock:
            if self._thread and not self.ended:
                self.cuts += 1
                kind = _kind_of(self, self.seconds, self._error)
                _raise_in_thread(ctypes.c_ulong(self._thread), ctypes.py_object(kind))

    def _end(self) -> None:
        while not self.ended:
            try:
                with self._lock:
                    self.ended = True
                    if self.cuts:  # take back one that has not arrived
                        _raise_in_thread(ctypes.c_ulong(self._thread), None)
            except Cut:  # it came in between, and the next is `AGAIN_SECONDS` away
                continue


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
        self._running = False
        self._calls: list[Interruptible] = []

    def add(self, call: Interruptible) -> None:
        """Cut *call* now and every `AGAIN_SECONDS` until it has ended."""
        call.cut()
        with self._lock:
            self._calls.append(call)
            if self._running:
                return
            self._running = True
        threading.Thread(target=self._reap, name="resilience-reaper", daemon=True).start()

    def _reap(self) -> None:
        pause = threading.Event()
        while True:
            pause.wait(AGAIN_SECONDS)
            with self._lock:
                self._calls = [one for one in self._calls if not one.ended]
                if not self._calls:
                    self._running = False
                    return
                calls = list(self._calls)
            for one in calls:
                one.cut()


reaper = Reaper()
"""That of this process."""
