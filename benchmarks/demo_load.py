"""A busy loop beside a benchmark: `python -m benchmarks.demo_load [SEED]`.

Without a seed it uses a whole processor all the time, with one for some seconds at a time, then
none for some seconds. It ends when the process that started it does.
"""

import math
import os
import sys
from random import Random
from threading import Event
from time import perf_counter

BURST_SECONDS = 1.0, 6.0
LOOK_SECONDS = 0.25


def main(seed: str | None) -> None:
    """Use a processor until the parent process is gone."""
    parent = os.getppid()
    dice = Random(seed)  # noqa: S311 - load, no secrets
    while os.getppid() == parent:
        _spin(math.inf if seed is None else dice.uniform(*BURST_SECONDS), parent)
        _rest(0.0 if seed is None else dice.uniform(*BURST_SECONDS), parent)


def _spin(seconds: float, parent: int) -> None:
    until = perf_counter() + seconds
    while (now := perf_counter()) < until and os.getppid() == parent:
        while perf_counter() < now + LOOK_SECONDS:
            pass


def _rest(seconds: float, parent: int) -> None:
    until = perf_counter() + seconds
    while perf_counter() < until and os.getppid() == parent:
        Event().wait(LOOK_SECONDS)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else None)
