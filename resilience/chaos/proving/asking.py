"""Makes a call in a thread of its own, and measures it."""

import threading
from typing import Any, Final

import celery.exceptions

from resilience.chaos.proving.call import Call
from resilience.chaos.proving.verdict import Answer, read_answer
from resilience.clock import SystemClock
from resilience.levels import Level

TICK_SECONDS: Final = 0.02


class Asked:
    """A call that is being made.

    Attributes:
        answer: None as long as there is none.
        seconds: How long the answer took; until then, how long the call has taken.
        late: Seconds by which the longest pause of this process was too long meanwhile. On a busy
            machine the answer is as late for the same reason.
    """

    def __init__(self, call: Call, *, seconds: float) -> None:
        """Make *call*, and wait for its answer for *seconds* at most."""
        self.answer: Answer | None = None
        self.late = 0.0
        self._call = call
        self._patience = seconds
        self._took: float | None = None
        self._over = threading.Event()
        self._began = SystemClock.monotonic()
        for target in (self._ask, self._watch):
            threading.Thread(target=target, daemon=True).start()

    @property
    def seconds(self) -> float:
        """See the class."""
        return SystemClock.monotonic() - self._began if self._took is None else self._took

    def wait(self) -> None:
        """Wait until there is an answer, or for as long as there may be none."""
        self._over.wait(max(0.0, self._patience + TICK_SECONDS - self.seconds))
        self._over.set()

    @property
    def over(self) -> bool:
        """Whether there is an answer, or will be none."""
        return self._over.is_set()

    def _ask(self) -> None:
        answer: Any
        try:
            answer = read_answer(self._call.make(seconds=self._patience))
        except celery.exceptions.TimeoutError as error:
            # Celery raises it for a task that failed with a TimeoutError, too.
            in_time = self.seconds < self._patience
            answer = _failure(error) if in_time else None
        except Exception as error:  # noqa: BLE001 - whatever the call raises is its answer
            answer = _failure(error)
        if not self._over.is_set():
            self.answer, self._took = answer, self.seconds
        self._over.set()

    def _watch(self) -> None:
        while not self._over.is_set():
            began = SystemClock.monotonic()
            self._over.wait(TICK_SECONDS)
            self.late = max(self.late, SystemClock.monotonic() - began - TICK_SECONDS)


def _failure(error: BaseException) -> Answer:
    return Answer(level=Level.FAILED, source=type(error).__name__)
