"""What the benchmarks of the breaker share: a server, and processes that meet in it."""

import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import repeat
from pathlib import Path
from time import perf_counter
from typing import Any

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


def join(
    url: str, name: str, policy: BreakerPolicy | None = None, *, timeout_seconds: float = 0.1
) -> tuple[Breaker, Pulse]:
    """Return the breaker *name* of a process that shares the store at *url*, and its pulse."""
    store = Store(url, namespace="benchmark", timeout_seconds=timeout_seconds)
    pulse = Pulse(StoreFleet(store))
    return Breaker(name, pulse, policy, listeners=()), pulse


def times(calls: int, function: Callable[[], object]) -> Callable[[], None]:
    """Return a function that calls *function* so often."""

    def loop() -> None:
        for _ in repeat(None, calls):
            function()

    return loop


def round_trips(
    name: str,
    call: Callable[[], object],
    pulse: Pulse,
    client: redis.Redis,
    calls: int = COUNTED_CALLS,
) -> Iterator[Figure]:
    """Count at the server what *calls* ask of it, by default in some seconds.

    Pulses are counted by the process that sends them, and are a figure of their own. The server
    counts what it reads from its sockets: one per exchange, whatever a script does.
    """
    pause, batch = threading.Event(), times(BATCH, call)
    pulse.refresh()  # the script is loaded, and the client connected
    before = exchanges(client)
    sent, began = pulse.sent, perf_counter()
    for _ in range(calls // BATCH):
        batch()
        pause.wait(PAUSE_SECONDS)
    seconds, pulses = perf_counter() - began, pulse.sent - sent
    asked = exchanges(client) - before - 1  # the question itself
    yield Figure(
        name=f"{name}_round_trips_beside_pulses",
        value=asked - pulses,
        unit="count",
        bound=0,
        sides={"calls": calls, "pulses": pulses, "exchanges": asked},
    )
    yield Figure(
        name=f"{name}_pulses",
        value=pulses / seconds,
        unit="1/s",
        bound=PULSES_PER_SECOND,
        sides={"pulses": pulses, "seconds": round(seconds, 2)},
    )


def exchanges(client: redis.Redis) -> int:
    """Return how often the server has read from a socket: once per exchange, this one included."""
    stats: Any = client.info("stats")
    return int(stats["total_reads_processed"])
