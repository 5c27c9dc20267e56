"""What the hot path of a call touches, and nothing else."""

import itertools
from typing import Any


class Gate:
    """Counts the calls of one generation of a circuit.

    Counters are C iterators: `next` on them is one step even with threads, and no lock is taken.
    A call keeps the gate it came through, so the result of one that began in an older
    generation lands in a gate that nobody reads any more.

    Attributes:
        generation: Of the circuit.
        until: Monotonic time until which a call may pass without further thought.
        good: Counts a call that ended well.
        slow: Counts a call that took too long, however it ended.
        failed_at: When the last call failed.
        retry_at: Until when the dependency asked to be left alone.
    """

    __slots__ = (
        "_bad",
        "_drained",
        "_good",
        "_sent",
        "_slow",
        "_tail_good",
        "bad",
        "failed_at",
        "generation",
        "good",
        "retry_at",
        "slow",
        "tail",
        "until",
    )

    def __init__(self, generation: int, until: float) -> None:
        self.generation = generation
        self.until = until
        self._good, self._bad, self._slow = itertools.count(), itertools.count(), itertools.count()
        self.good: Any = self._good.__next__
        self.bad: Any = self._bad.__next__
        self.slow: Any = self._slow.__next__
        self._sent = (0, 0, 0)
        self._drained = repr(self._good), repr(self._bad)
        self._tail_good = 0
        self.tail = 0
        self.failed_at = self.retry_at = 0.0

    def fail(self, now: float) -> None:
        """Count a failure."""
        good = _number(repr(self._good))
        self.tail = self.tail + 1 if good == self._tail_good else 1
        self._tail_good = good
        self.failed_at = now
        self.bad()

    def drain(self) -> tuple[int, int, int, int] | None:
        """Return how many were good, bad and slow since the last time, and the bad since a good.

        None: no call has ended.
        """
        # A process may have hundreds of gates, and in most of them there is nothing to be counted.
        good, bad = repr(self._good), repr(self._bad)
        if (good, bad) == self._drained:
            return None
        self._drained = good, bad
        counted = _number(good), _number(bad), _number(repr(self._slow))
        before, self._sent = self._sent, counted
        # Never less than none: another thread may have drained what has ended since the above.
        new_good, new_bad, slow = (
            max(0, now - then) for now, then in zip(counted, before, strict=True)
        )
        tail = self.tail if counted[0] == self._tail_good else 0
        return new_good, new_bad, slow, tail


def _number(counter: str) -> int:
    """Return what a counter would give next, from its repr, which takes nothing from it."""
    return int(counter[6:-1])
