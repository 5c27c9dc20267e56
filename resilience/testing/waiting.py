"""The one place where a test waits for something that gives no signal."""

from collections.abc import Callable
from threading import Event
from typing import TypeVar

from resilience.clock import SystemClock

POLL_SECONDS = 0.02
REST = 4
"""A wait pauses this many times as long as an answer took: the awaited work needs the processor."""
REST_SECONDS_MAX = 0.2
LATE = 0.03
"""The awaited event may be noticed late by this share of the time waited so far."""

T = TypeVar("T")


def wait_until(predicate: Callable[[], T], seconds: float, what: str) -> T:
    """Call *predicate* until its answer is true, and return that answer.

    Args:
        predicate: Asked at least once, then every 20 ms, or every 200 ms if an answer takes
            long or the wait has been long; its exceptions end the wait.
        seconds: How long to keep asking.
        what: The thing waited for, as a sentence: "the queue is empty".

    Raises:
        AssertionError: It was still not so after *seconds*.
    """
    clock = SystemClock()
    began = asked = clock.monotonic()
    pause = Event()
    while not (answer := predicate()):
        answered = clock.monotonic()
        if answered - began >= seconds:
            msg = f"not within {seconds:g} s: {what}"
            raise AssertionError(msg)
        rest = max(REST * (answered - asked), LATE * (answered - began))
        pause.wait(max(POLL_SECONDS, min(rest, REST_SECONDS_MAX)))
        asked = clock.monotonic()
    return answer
