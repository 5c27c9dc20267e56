"""How long something may take."""

from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter


@contextmanager
def takes_at_most(seconds: float) -> Iterator[None]:
    """Fail the test if the block takes longer."""
    began = perf_counter()
    yield
    took = perf_counter() - began
    assert took <= seconds, f"took {took:.3f} s, not {seconds:g} s"
