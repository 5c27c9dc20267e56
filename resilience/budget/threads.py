"""Calls in helper threads, so that a caller can leave one behind that takes too long."""

import contextvars
import functools
import os
import sys
import threading
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from queue import SimpleQueue
from typing import Any, Protocol

from resilience.budget.interrupts import Interruptible, reaper
from resilience.errors import TooManyAbandonedError
from resilience.text import get_logger

ABANDONED_MAX = 64
"""So many calls of a process may still run after they were given up; then no other is begun."""

logger = get_logger("resilience")


class Run(Protocol):
    """What a thread does next."""

    def work(self) -> bool:
        """Do it; return whether the thread may be used again."""


Inbox = SimpleQueue[Run]
Carrier = Callable[[], AbstractContextManager[object]]

carriers: list[Carrier] = []
"""Each is called in the caller's thread and entered in the helper's, to bring along what a
framework keeps by thread. Context variables come along anyway."""

cleaners: list[Callable[[], object]] = []
"""Each is called in a helper thread that has run an app's code and ends now, to give back what a
framework keeps by thread, such as a `scoped_session.remove`. Django's connections are closed
anyway."""


class AbandonedError(Exception):
    """A call took too long and was left behind; it may still run."""


class HelperThreads:
    """Runs calls in threads of its own.

    The thread of an app's call ends with it, and so does what frameworks keep by thread: none finds
    the session of another. A thread of the library's own calls waits for the next one.

    A call that was given up goes on until it comes back from what it waits for: give every client
    a timeout of its own, and one that ends in time. It is then cut until it ends. A cut may come in
    the midst of what the innermost block of the call does to clean up. `abandoned` counts the calls
    that still run; once they are `ABANDONED_MAX`, none is begun.
    """

    def __init__(self) -> None:
        """Start with no thread."""
        self._begin()
        os.register_at_fork(after_in_child=self._begin)

    def _begin(self) -> None:
        """Forget the threads of the process that this one was forked from."""
        self._idle: deque[Inbox] = deque()
        self.left: set[Run] = set()

    @property
    def abandoned(self) -> int:
        """How many calls that were given up still run."""
        return len(self.left)

    def run(self, function: Callable[[], Any], seconds: float, *, interrupt: bool) -> Any:  # noqa: ANN401
        """Return what *function* returns, if it does within *seconds*.

        Args:
            function: Takes nothing.
            seconds: How long to wait for it.
            interrupt: Whether it is an app's code: if it is given up it is not begun any more, or
                else is cut until it ends. Its thread is used for nothing else.

        Raises:
            AbandonedError: It takes longer, and goes on.
            TooManyAbandonedError: So many others do that it was not begun.
            BaseException: What *function* raised.
        """
        self.must_have_room()
        run = _Run(function, seconds, self.left, interrupt=interrupt)
        self.give(run)
        try:
            in_time = run.ended.acquire(timeout=max(0.0, seconds))
        except BaseException:
            run.abandon()
            raise
        if not in_time and run.abandon():
            msg = f"left behind after {seconds:g} s"
            raise AbandonedError(msg)
        return run.result()

    def must_have_room(self) -> None:
        """Let only pass what may be left behind as well.

        Raises:
            TooManyAbandonedError: So many calls are that no other is begun.
        """
        if len(self.left) >= ABANDONED_MAX:
            raise TooManyAbandonedError(len(self.left))

    def give(self, run: Run) -> None:
        """Let a thread that has nothing to do begin with *run*."""
        try:
            inbox = self._idle.pop()
        except IndexError:
            inbox = SimpleQueue()
            inbox.put(run)  # before its thread begins, which then need not wait for it
            serve = functools.partial(_serve, inbox, self._idle)
            threading.Thread(target=serve, name="resilience-helper", daemon=True).start()
        else:
            inbox.put(run)


class _Run:
    """One call in a helper thread: done, or given up, whichever comes first."""

    def __init__(
        self,
        function: Callable[[], Any],
        seconds: float,
        left: set[Run],
        *,
        interrupt: bool,
    ) -> None:
        self._function = function
        self._limited = Interruptible(seconds, AbandonedError) if interrupt else None
        self._context = contextvars.copy_context()
        self._carried = [carrier() for carrier in carriers]
        self._left = left
        self._lock = threading.Lock()
        self._given_up = self._done = False
        self._value: Any = None
        self._error: BaseException | None = None
        self.ended = threading.Lock()
        self.ended.acquire()

    def work(self) -> bool:
        """Call; return whether the thread may be used again."""
        limited = self._limited
        with self._lock:
            if self._given_up and limited is not None:
                limited.ended = True
                self._left.discard(self)
                return False
        try:
            if limited is None:
                self._context.run(self._call)
            else:
                self._context.run(limited.call, self._call)
        except BaseException as error:  # noqa: BLE001 - the caller's to handle
            self._error = error
        with self._lock:
            self._done = not self._given_up
        if self._done:
            self.ended.release()
        if limited is not None:
            _clean_thread()
        self._left.discard(self)
        return limited is None and self._done

    def result(self) -> Any:  # noqa: ANN401 - what the function returned
        """Return or raise what the call ended in."""
        error, self._error = self._error, None
        if error is None:
            return self._value
        try:
            raise error
        finally:
            del error  # it holds this frame

    def abandon(self) -> bool:
        """Give the call up; return whether it had not ended before."""
        with self._lock:
            if self._done:
                return False
            self._given_up = True
            self._left.add(self)
        if self._limited is not None:
            reaper.add(self._limited)
        return True

    def _call(self) -> None:
        with ExitStack() as stack:
            for carried in self._carried:
                stack.enter_context(carried)
            self._value = self._function()


def _clean_thread() -> None:
    """Give back what frameworks keep by thread."""
    django, conf = sys.modules.get("django.db"), sys.modules.get("django.conf")
    own = list(cleaners)
    if django is not None and conf is not None and conf.settings.configured:
        own.append(django.connections.close_all)
    for clean in own:
        try:
            clean()
        except Exception:
            logger.exception("%r failed at the end of a helper thread", clean)


def _serve(inbox: Inbox, idle: deque[Inbox]) -> None:
    again = True
    while again:
        run = inbox.get()
        again = run.work()
        del run  # it holds what the call returned
        if again:
            idle.append(inbox)


helper_threads = HelperThreads()
"""Those of this process."""
