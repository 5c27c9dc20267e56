"""What the benchmarks of the breaker share: a server, and processes that meet in it."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import repeat
from pathlib import Path
from timeit import Timer

from resilience.breaker import Breaker, BreakerPolicy
from resilience.pulse import Pulse
from resilience.store import Store
from resilience.store.fleet import StoreFleet
from resilience.testing.valkey import ValkeyProcess


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
