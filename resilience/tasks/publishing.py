"""Publishing that makes nobody late, and the errors it ends in."""

import contextvars
import os
import threading
from collections.abc import Callable

from kombu.exceptions import (  # type: ignore[attr-defined] # newer than its stubs
    BatchPublishError,
    LimitExceeded,
    OperationalError,
)

PUBLISH_ERRORS = (OperationalError, BatchPublishError, LimitExceeded, OSError)
"""What a publish ends in if the broker is at fault; another attempt may succeed."""
AT_ONCE = 64
"""Threads that publish at the same time, those that were given up on included."""


class PublishTimeoutError(OSError):
    """The broker did not take the messages in time."""


class Helpers:
    """Publishes in threads, so that a caller can leave one behind that waits for the broker."""

    def __init__(self) -> None:
        """Start with no thread."""
        self._free = threading.BoundedSemaphore(AT_ONCE)
        os.register_at_fork(after_in_child=self._begin)

    def _begin(self) -> None:
        """Forget the threads of the process that this one was forked from."""
        self._free = threading.BoundedSemaphore(AT_ONCE)

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
        raised: list[BaseException] = []

        def work() -> None:
            try:
                publish(given_up)
            except BaseException as error:  # noqa: BLE001 - the caller's to handle
                raised.append(error)
            finally:
                ended.set()
                free.release()

        if not free.acquire(timeout=seconds):
            msg = f"{AT_ONCE} other threads wait for the broker already"
            raise PublishTimeoutError(msg)
        context = contextvars.copy_context()
        try:
            threading.Thread(target=context.run, args=(work,), name="publish", daemon=True).start()
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


helpers = Helpers()
