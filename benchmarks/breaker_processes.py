"""Processes that call a dependency together."""

import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

FORK = multiprocessing.get_context("fork")
WAIT_SECONDS = 60.0
"""Longer than anything here takes."""


@contextmanager
def forked(count: int, work: Callable[..., None], *arguments: Any) -> Iterator[None]:  # noqa: ANN401
    """Run `work(number, *arguments)` in *count* processes, and kill what is left of them."""
    processes = [
        FORK.Process(target=work, args=(number, *arguments), daemon=True) for number in range(count)
    ]
    for process in processes:
        process.start()
    try:
        yield
        for process in processes:
            process.join(WAIT_SECONDS)
    finally:
        for process in processes:
            process.kill()
            process.join()


def collect(results: Any, count: int) -> list[Any]:  # noqa: ANN401 - a queue of this context
    """Return what *count* processes have put into the queue *results*.

    Raises:
        queue.Empty: One of them did not.
    """
    return [results.get(timeout=WAIT_SECONDS) for _ in range(count)]
