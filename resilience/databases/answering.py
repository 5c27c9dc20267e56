"""Limits how long a server may take to say how far it is."""

import asyncio
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, TypeVar

from sqlalchemy import Connection

from resilience.budget import call_within, current_budget

ANSWER_SECONDS: Final = 1.0
ANSWER_SECONDS_MIN: Final = 0.05
"""A server that says nothing for so long counts as unreachable."""
T = TypeVar("T")


def answered_within(waits: float, connection: Connection, ask: Callable[[], T]) -> T:
    """Return `ask()`, whose server waits for *waits* seconds and then answers on *connection*.

    It gets half of what remains of the budget, so that there is time to ask another one.

    Raises:
        TimeoutError: It said nothing.
    """
    budget, seconds = current_budget(), ANSWER_SECONDS
    if budget is not None:
        seconds = min(seconds, max(ANSWER_SECONDS_MIN, budget.remaining() / 2))
    seconds += waits
    if not connection.dialect.is_async:
        answer: T = call_within(seconds, lambda: _silent(seconds), ask)
        return answer
    # psycopg, if it is cancelled, asks the server to cancel and waits for that, too.
    driver = connection.connection.driver_connection
    loop = asyncio.get_running_loop()
    timer = loop.call_later(seconds, _hang_up, driver)
    try:
        return ask()
    except Exception as error:
        if loop.time() >= timer.when():
            raise _silent(seconds) from error
        raise
    finally:
        timer.cancel()


def _silent(seconds: float) -> TimeoutError:
    return TimeoutError(f"it said nothing for {seconds:.2f} s")


def _hang_up(driver: Any) -> None:  # noqa: ANN401 - a connection of any driver
    """Let whoever waits for an answer on the connection see its end."""
    with suppress(OSError), socket.socket(fileno=os.dup(driver.fileno())) as end:
        end.shutdown(socket.SHUT_RDWR)
