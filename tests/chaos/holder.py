"""A process that takes slots and notes when it holds one; run by holders.py.

Each interval is on the disk before it counts: `enter` is written after the slot was granted, and
`leave` before it is given back, in CLOCK_MONOTONIC, which all processes of a host
share.
"""

import os
import random
import sys
from pathlib import Path
from threading import Event
from time import monotonic  # noqa: TID251 - what the verdict compares

from resilience.bulkhead import Slots
from resilience.store import Store
from resilience.store.slots import SlotStore
from resilience.testing.waiting import wait_until

PATIENCE_SECONDS = 120.0


def main(url: str, slots: int, acquisitions: int, hold_seconds: float, log: Path) -> None:
    """Take a slot so many times, from when the file `go` is there."""
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    store = SlotStore(Store(url, namespace="chaos", timeout_seconds=30.0))
    capped = Slots("payments", slots, store=store)

    def note(what: str) -> None:
        os.write(file, f"{what} {monotonic()!r}\n".encode())
        os.fsync(file)

    def hold() -> None:
        note("enter")
        Event().wait(random.uniform(0, hold_seconds))  # noqa: S311 - no secret
        note("leave")

    note("ready")
    wait_until(log.with_name("go").exists, PATIENCE_SECONDS, "all are ready")
    for _ in range(acquisitions):
        capped.call(PATIENCE_SECONDS, hold)


if __name__ == "__main__":
    _, url, slots, acquisitions, hold_seconds, path = sys.argv
    main(url, int(slots), int(acquisitions), float(hold_seconds), Path(path))
