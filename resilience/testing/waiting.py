"""The one place where a test waits for something that gives no signal."""

from collections.abc import Callable
from threading import Event
from typing import TypeVar

from resilience.clock import SystemClock

POLL_SECONDS = 0.02
REST = 4
"""How much longer a wait rests than an answer took: what is waited for needs the processor."""

T = TypeVar("T")


def wait_until(predicate: Callable[[], T], seconds: float, what: str) -> T:
    """Call *predicate* until its answer is true, and return that answer.

    Args:
        predicate: Asked at least once, then every 20 ms, or more rarely if an answer takes long;
            its exceptions end the wait.
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
        pause.wait(max(POLL_SECONDS, REST * (answered - asked)))
        asked = clock.monotonic()
    return answer
