"""A call on a connection that is cut by hanging up: it ends in its own thread, and frees it."""

import os
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from resilience.budget.threads import AbandonedError, helper_threads


def hung_up_after(seconds: float, file: int, function: Callable[[], Any]) -> Any:  # noqa: ANN401 - what the function returns
    """Return `function()`, which waits for an answer on the socket *file*.

    After *seconds* the connection is shut down, so that the call sees its end and returns. Nothing
    of the call goes on then, so its caller may close the connection. A client in C, such as libpq,
    crashes the process if one thread closes the connection that another one still waits on.

    Args:
        seconds: How long the call may take.
        file: The file descriptor of a connected socket.
        function: Takes nothing. It must not handle the end of the connection itself.

    Raises:
        AbandonedError: It took longer, and its connection is shut down.
        BaseException: What *function* raised in time.
    """
    watch = _Watch(seconds, os.dup(file))
    try:
        helper_threads.give(watch)
    except BaseException:
        watch.close()
        raise
    try:
        value = function()
    except BaseException as error:
        if watch.end() or not isinstance(error, Exception):
            raise
        raise watch.too_late() from error
    if watch.end():
        return value
    raise watch.too_late()


def hang_up(file: int) -> None:
    """Shut down the connection behind the socket *file*: who waits for an answer sees its end."""
    with suppress(OSError), socket.socket(fileno=os.dup(file)) as end:
        end.shutdown(socket.SHUT_RDWR)


class _Watch:
    """Shuts a connection down, unless its call ends before."""

    def __init__(self, seconds: float, file: int) -> None:
        self._seconds = seconds
        # A duplicate: the client may close its own file meanwhile, and another take the number.
        self._file = file
        self._ended = threading.Lock()
        self._ended.acquire()
        self._first = threading.Lock()

    def work(self) -> bool:
        """Wait for the end of the call."""
        in_time = self._ended.acquire(timeout=self._seconds)
        if not in_time and self._first.acquire(blocking=False):
            hang_up(self._file)
        self.close()
        return True

    def end(self) -> bool:
        """Note that the call has ended; return whether that was in time."""
        in_time = self._first.acquire(blocking=False)
        self._ended.release()
        return in_time

    def close(self) -> None:
        """Give the file back."""
        os.close(self._file)

    def too_late(self) -> AbandonedError:
        """Return the error of a call that was not."""
        return AbandonedError(f"hung up after {self._seconds:g} s")
