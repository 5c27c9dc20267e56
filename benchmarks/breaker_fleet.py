"""What the benchmarks of the breaker share: a server, and processes that meet in it."""

import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import repeat
from pathlib import Path
from time import perf_counter
from timeit import Timer
from typing import cast

import redis

from benchmarks.figure import Figure
from resilience.breaker import Breaker, BreakerPolicy
from resilience.pulse import Pulse
from resilience.store import Store
from resilience.store.fleet import StoreFleet
from resilience.testing.valkey import ValkeyProcess

PULSES_PER_SECOND = 5.0
COUNTED_CALLS = 100_000
BATCH = 1000
PAUSE_SECONDS = 0.02
EXCHANGES = ("evalsha", "eval", "script|load", "ping", "get", "set", "multi")
"""What a client may have sent; the other commands in the statistics are those of scripts."""


@contextmanager
def running_server() -> Iterator[ValkeyProcess]:
    """Run a server for as long as the block lasts, whatever was done to it."""
    with tempfile.TemporaryDirectory(prefix="benchmark-") as directory:
        server = ValkeyProcess(Path(directory) / "valkey")
        server.start()
        try:
            yield server
        finally:
            server.kill()


def join(url: str, name: str, policy: BreakerPolicy | None = None) -> tuple[Breaker, Pulse]:
    """Return the breaker *name* of a process that shares the store at *url*, and its pulse."""
    pulse = Pulse(StoreFleet(Store(url, namespace="benchmark")))
    return Breaker(name, pulse, policy, listeners=()), pulse


def best_us(function: Callable[[], object], *, repeats: int, calls: int = 50) -> float:
    """Return microseconds per call in the best of many short runs, as the others were disturbed."""
    return min(Timer(function).repeat(repeats, calls)) / calls * 1e6


def times(calls: int, function: Callable[[], object]) -> Callable[[], None]:
    """Return a function that calls *function* so often."""

    def loop() -> None:
        for _ in repeat(None, calls):
            function()

    return loop


def round_trips(
    name: str, call: Callable[[], object], pulse: Pulse, client: redis.Redis
) -> Iterator[Figure]:
    """Count at the server what 100,000 calls ask of it, in some seconds.

    Pulses are counted by the process that sends them, and are a figure of their own. What one
    pulse makes the server do is learned from one before.
    """
    pause, batch = threading.Event(), times(BATCH, call)
    client.config_resetstat()
    pulse.refresh()
    of_pulse = _exchanges(client)
    client.config_resetstat()
    sent, began = pulse.sent, perf_counter()
    for _ in range(COUNTED_CALLS // BATCH):
        batch()
        pause.wait(PAUSE_SECONDS)
    seconds, pulses = perf_counter() - began, pulse.sent - sent
    exchanges = _exchanges(client)
    beside = {one: count - pulses * of_pulse.get(one, 0) for one, count in exchanges.items()}
    yield Figure(
        name=f"{name}_round_trips_beside_pulses",
        value=sum(beside.values()),
        unit="count",
        bound=0,
        sides={"calls": COUNTED_CALLS, "pulses": pulses, "commandstats": exchanges},
    )
    yield Figure(
        name=f"{name}_pulses",
        value=pulses / seconds,
        unit="1/s",
        bound=PULSES_PER_SECOND,
        sides={"pulses": pulses, "seconds": round(seconds, 2)},
    )


def _exchanges(client: redis.Redis) -> dict[str, int]:
    """Return how often each of `EXCHANGES` was run since the statistics were reset."""
    stats = cast("dict[str, dict[str, int]]", client.info("commandstats"))
    found = {name.removeprefix("cmdstat_"): one["calls"] for name, one in stats.items()}
    return {name: count for name, count in found.items() if name in EXCHANGES}
