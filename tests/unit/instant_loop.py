"""An event loop that does not wait: its clock jumps to the next moment when something is due."""

import asyncio
import math
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")
ROUNDING = 1e-6
"""Milliseconds by which sums of floats may be too high."""


class _Jumping(selectors.DefaultSelector):
    """Where the loop would wait for a time, the time passes: whole milliseconds, as with epoll."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Return what is ready now."""
        wait = max(timeout or 0.0, 0.0)
        self.now += math.ceil(wait * 1000 - ROUNDING) / 1000 or wait
        return super().select(0)


class InstantLoop(asyncio.SelectorEventLoop):
    """Runs what needs no input from outside, in virtual time that begins at 0."""

    def __init__(self) -> None:
        """Begin."""
        self._jumping = _Jumping()
        super().__init__(self._jumping)

    def time(self) -> float:
        """Return the virtual time in seconds."""
        return self._jumping.now


def run_instantly(main: Coroutine[Any, Any, T]) -> T:
    """Run *main* to its end in virtual time, and return its result."""
    with asyncio.Runner(loop_factory=InstantLoop) as runner:
        return runner.run(main)
