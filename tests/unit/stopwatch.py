"""How long something took."""

from collections.abc import Callable
from time import perf_counter


def elapsed(block: Callable[[], object]) -> float:
    """Return how many seconds *block* took."""
    start = perf_counter()
    block()
    return perf_counter() - start
