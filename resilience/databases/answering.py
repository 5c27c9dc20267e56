"""Limits how long a server may take to say how far it is."""

import asyncio
import os
from collections.abc import Callable
from typing import Any, Final, TypeVar

from sqlalchemy import Connection

from resilience.budget import call_within, current_budget
from resilience.budget.watching import hang_up

ANSWER_SECONDS: Final = 1.0
ANSWER_SECONDS_MIN: Final = 0.05
"""A server that says nothing for so long counts as unreachable."""
T = TypeVar("T")


def answered_within(waits: float, connection: Connection, ask: Callable[[], T]) -> T:
    """Return `ask()`, whose server waits for *waits* seconds and then answers on *connection*.

    It gets half of what remains of the budget, so that there is time to ask another one. Without
    limit, if the driver does not show its socket.

    Raises:
        TimeoutError: It said nothing.
    """
    budget, seconds = current_budget(), ANSWER_SECONDS
    if budget is not None:
        seconds = min(seconds, max(ANSWER_SECONDS_MIN, budget.remaining() / 2))
    seconds += waits
    driver = connection.connection.driver_connection
    file = _file_of(driver)
    if file is None:
        return ask()
    if not connection.dialect.is_async:
        answer: T = call_within(seconds, lambda: _silent(seconds), ask, file=file)
        return answer
    # psycopg, if it is cancelled, asks the server to cancel and waits for that, too.
    loop, file = asyncio.get_running_loop(), os.dup(file)
    timer = loop.call_later(seconds, hang_up, file)
    try:
        return ask()
    except Exception as error:
        if loop.time() >= timer.when():
            raise _silent(seconds) from error
        raise
    finally:
        timer.cancel()
        os.close(file)


def _file_of(driver: Any) -> int | None:  # noqa: ANN401 - a connection of any driver
    """Return the file descriptor of a connection's socket; None: its driver does not show it."""
    end = driver if hasattr(driver, "fileno") else getattr(driver, "_sock", None)  # of PyMySQL
    return None if end is None else int(end.fileno())


def _silent(seconds: float) -> TimeoutError:
    return TimeoutError(f"it said nothing for {seconds:.2f} s")
