"""What a slot costs a call, and how soon the slot of a killed process is free again."""

import math
import os
import signal
import threading
from collections.abc import Callable, Iterator
from functools import partial
from statistics import median
from time import perf_counter
from typing import Any

from celery import Celery

from benchmarks.breaker_fleet import exchanges, running_server
from benchmarks.breaker_peers import noop
from benchmarks.breaker_processes import FORK, WAIT_SECONDS
from benchmarks.figure import Figure, in_turns
from resilience import BulkheadFullError, Dependency, Resilience, Settings

SLOT_US = 150.0
EXCHANGES = 2.0
"""One to take a slot, one to give it back."""
BACK_SECONDS = 6.0
"""A lease lasts five seconds."""
CALLS = 200


def run(*, quick: bool) -> Iterator[Figure]:
    """Measure; *quick* takes fewer rounds."""
    with running_server() as server:
        app = Celery("slots", broker=server.url, set_as_current=False)
        resilience = Resilience(
            app,
            dependencies=[
                Dependency("free", timeout=None),
                Dependency("capped", timeout=None, slots=10),
                Dependency("single", timeout=None, slots=1),
            ],
            settings=Settings(store_url=server.url),
            listeners=[],
        )
        free, capped = resilience.pipeline("free"), resilience.pipeline("capped")
        capped.call(noop)
        seconds = in_turns(
            500 if quick else 5000,
            capped=partial(capped.call, noop),
            free=partial(free.call, noop),
            ping=server.client().ping,
        )
        us = {side: median(one) * 1e6 for side, one in seconds.items()}
        yield Figure(
            name="slot_cost",
            value=us["capped"] - us["free"],
            unit="us",
            bound=SLOT_US,
            sides={"one_exchange_us": round(us["ping"], 1)},
        )
        yield _exchanged(capped.call, server.client())
        yield _recovered(resilience, 1 if quick else 5)
        app.close()


def _exchanged(call: Callable[..., Any], client: Any) -> Figure:  # noqa: ANN401 - redis-py's
    before = exchanges(client)
    for _ in range(CALLS):
        call(noop)
    asked = exchanges(client) - before - 1  # the count itself is an exchange
    # Rounded down to tenths: a few exchanges are pulses, or come from the renewal.
    value = math.floor(10 * asked / CALLS) / 10
    sides = {"calls": CALLS, "exchanges": asked}
    return Figure(name="slot_exchanges", value=value, unit="count", bound=EXCHANGES, sides=sides)


def _recovered(resilience: Resilience, times: int) -> Figure:
    """Kill a process that has the only slot; try until another call gets it."""
    pipeline, seconds = resilience.pipeline("single"), []
    for _ in range(times):
        inside = FORK.Event()
        holder = FORK.Process(target=_hold, args=(pipeline, inside), daemon=True)
        holder.start()
        if not inside.wait(WAIT_SECONDS):
            msg = f"the holder had no slot within {WAIT_SECONDS:g} s"
            raise TimeoutError(msg)
        os.kill(holder.pid or 0, signal.SIGKILL)
        began = perf_counter()
        holder.join()
        while perf_counter() - began < WAIT_SECONDS:
            try:
                pipeline.call(noop)
            except BulkheadFullError:
                continue
            break
        seconds.append(perf_counter() - began)
    return Figure(
        name="slot_back_after_kill",
        value=max(seconds),
        unit="s",
        bound=BACK_SECONDS,
        sides={"median": round(median(seconds), 2), "kills": times},
    )


def _hold(pipeline: Any, inside: Any) -> None:  # noqa: ANN401 - an event of processes
    def call() -> None:
        inside.set()
        threading.Event().wait(WAIT_SECONDS)

    pipeline.call(call)
