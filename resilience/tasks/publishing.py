"""Publishing that makes nobody late, and the errors it ends in."""

import contextvars
import functools
import os
import threading
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue

from kombu.exceptions import (  # type: ignore[attr-defined] # newer than its stubs
    BatchPublishError,
    LimitExceeded,
    OperationalError,
)

PUBLISH_ERRORS = (OperationalError, BatchPublishError, LimitExceeded, OSError)
"""What a publish ends in if the broker is at fault; another attempt may succeed."""
AT_ONCE = 64
"""Threads that publish at the same time, those that were given up on included."""


Inbox = SimpleQueue[Callable[[], None]]


class PublishTimeoutError(OSError):
    """The broker did not take the messages in time."""


class Helpers:
    """Publishes in threads, so that a caller can leave one behind that waits for the broker.

    A thread that is done waits for the next publish: in a new one Celery would make a result
    backend first, which takes longer than to publish.
    """

    def __init__(self) -> None:
        """Start with no thread."""
        self._begin()
        os.register_at_fork(after_in_child=self._begin)

    def _begin(self) -> None:
        """Forget the threads of the process that this one was forked from."""
        self._free = threading.BoundedSemaphore(AT_ONCE)
        self._idle: deque[Inbox] = deque()

    def run(self, publish: Callable[[threading.Event], None], seconds: float) -> bool:
        """Begin `publish(given_up)`, wait for it at most *seconds*, and return whether it ended.

        It ends by itself some time, as every wait for the broker is bounded. It may look at
        *given_up*, which is set when nobody waits for it any longer.

        Raises:
            PublishTimeoutError: Too many others are under way to begin within *seconds*.
            Exception: What *publish* raised.
        """
        seconds = max(0.0, seconds)
        free, given_up, ended = self._free, threading.Event(), threading.Event()
        context, raised = contextvars.copy_context(), list[BaseException]()

        def work() -> None:
            try:
                context.run(publish, given_up)
            except BaseException as error:  # noqa: BLE001 - the caller's to handle
                raised.append(error)
            finally:
                ended.set()
                free.release()

        if not free.acquire(timeout=seconds):
            msg = f"{AT_ONCE} other threads wait for the broker already"
            raise PublishTimeoutError(msg)
        try:
            self._thread().put(work)
        except RuntimeError:
            free.release()
            raise
        try:
            in_time = ended.wait(seconds)
        except BaseException:
            given_up.set()
            raise
        if not in_time:
            given_up.set()
        elif raised:
            raise raised[0]
        return in_time

    def _thread(self) -> "Inbox":
        """Return the inbox of a thread that has nothing to do."""
        try:
            return self._idle.pop()
        except IndexError:
            inbox: Inbox = SimpleQueue()
            work = functools.partial(_serve, inbox, self._idle)
            threading.Thread(target=work, name="publish", daemon=True).start()
            return inbox


def _serve(inbox: "Inbox", idle: "deque[Inbox]") -> None:
    while True:
        inbox.get()()
        idle.append(inbox)


helpers = Helpers()
