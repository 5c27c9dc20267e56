"""Measures how long something took."""

from collections.abc import Callable, Sequence
from statistics import median
from time import perf_counter


def elapsed(block: Callable[[], object]) -> float:
    """Return how many seconds *block* took."""
    start = perf_counter()
    block()
    return perf_counter() - start


def next_to_nothing(seconds: Sequence[float]) -> bool:
    """Tell whether calls that took *seconds* waited for nothing, on a machine that may be busy.

    The fastest, below 5 ms, shows what a call costs by itself. The median, below 50 ms, shows that
    calls do not wait; single ones may be late on a busy machine.
    """
    return min(seconds) < 0.005 and median(seconds) < 0.05
