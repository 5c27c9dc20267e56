"""Calls through slots in a process that gevent has patched; prints as JSON what became of each.

Run by `python -m gevent.monkey`, with the store's address.
"""

import json
import sys
import time
from collections.abc import Callable
from time import perf_counter

import gevent

from resilience.bulkhead import Slots
from resilience.errors import BulkheadFullError
from resilience.store import Store
from resilience.store.slots import SlotStore

LEASE_SECONDS = 5.0

SLOTS = 5
CROWD = 200
PATIENCE_SECONDS = 20.0
SHORT_SECONDS = 0.5


class Told:
    """What the calls have seen.

    Attributes:
        most: Most calls that ran at once.
        pause: Longest time, in seconds, for which no other greenlet came to run.
    """

    def __init__(self) -> None:
        """Nothing yet."""
        self.running = self.most = 0
        self.pause = 0.0

    def hold(self, seconds: float) -> None:
        """Hold a slot for so long."""
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            time.sleep(seconds)  # noqa: TID251 - a call that waits for its dependency
        finally:
            self.running -= 1

    def tick(self) -> None:
        """Measure pauses, for ever."""
        while True:
            began = perf_counter()
            time.sleep(0.01)  # noqa: TID251 - as above
            self.pause = max(self.pause, perf_counter() - began)


def seconds_of(function: Callable[[], object]) -> float:
    """Return how long *function* took."""
    began = perf_counter()
    function()
    return perf_counter() - began


def main(url: str) -> None:
    """Call, and print."""
    told = Told()
    slots = Slots("d", SLOTS, store=SlotStore(Store(url, namespace="g", timeout_seconds=2.0)))

    def call(seconds: float, patience: float = PATIENCE_SECONDS) -> str:
        try:
            slots.call(patience, told.hold, seconds)
        except BulkheadFullError:
            return "full"
        return "done"

    ticking = gevent.spawn(told.tick)
    crowd = [gevent.spawn(call, 0.02) for _ in range(CROWD)]
    gevent.joinall(crowd)
    # Longer than a lease: were they not renewed, the others would have their slots.
    long = [gevent.spawn(call, 1.5 * LEASE_SECONDS) for _ in range(SLOTS)]
    gevent.sleep(0.3)
    refused: list[str] = []
    waited = seconds_of(lambda: refused.append(call(0.0, SHORT_SECONDS)))
    late = gevent.spawn(call, 0.0, LEASE_SECONDS + 0.5)
    late.join()
    victim = long.pop()
    freed = seconds_of(lambda: (victim.kill(), refused.append(call(0.0))))
    gevent.joinall(long)
    ticking.kill()
    results = {
        "crowd": sorted({one.value for one in crowd}),
        "most": told.most,
        "pause": told.pause,
        "refused": refused,
        "waited": waited,
        "late": late.value,
        "freed": freed,
        "long": [one.value for one in long],
    }
    json.dump(results, sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1])
