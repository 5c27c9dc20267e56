"""How full the lanes of a dependency are, as far as one process knows."""

import os
import threading
from dataclasses import dataclass
from random import SystemRandom

from resilience.bulkhead.lanes import SHARES, Lane
from resilience.clock import Clock, SystemClock

READING_SECONDS: float = 1.0
"""A process asks for a depth this often at most; what it publishes between is added to it."""
KNOWN_SECONDS: float = 2 * READING_SECONDS
"""A depth that was asked for longer ago says nothing any more."""
RETRY_SECONDS_MAX = 60.0
JOB_SECONDS = 1.0
"""What a job is taken to need whose time nothing limits."""
JITTER = 0.2
_random = SystemRandom()  # the same in no two children


class _Guard:
    """A lock, held for a few additions; never one that another thread held at a fork."""

    def __init__(self) -> None:
        self._renew()
        os.register_at_fork(after_in_child=self._renew)

    def _renew(self) -> None:
        self.lock = threading.Lock()


_guard = _Guard()


@dataclass(frozen=True, slots=True, kw_only=True)
class Full:
    """Why there is no room.

    Attributes:
        depth: Jobs in the lanes.
        retry_after: Seconds until there may be room.
    """

    depth: int
    retry_after: float


class Room:
    """The depth of a dependency's lanes: the last reading, and what was published since.

    A depth that is not known lets everybody in.
    """

    def __init__(
        self,
        max_queue: int,
        *,
        concurrency: int,
        timeout: float | None,
        clock: Clock | None = None,
    ) -> None:
        """Know nothing yet.

        Args:
            max_queue: Most jobs that the lanes together may hold.
            concurrency: Jobs that are done at once.
            timeout: Seconds that one may take.
            clock: Tells when a reading is too old.
        """
        self.max_queue = max_queue
        self._seconds_per_job = (JOB_SECONDS if timeout is None else timeout) / concurrency
        self._clock = clock or SystemClock()
        self._depth = self._since = self._meanwhile = 0
        self._asked = self._due = -KNOWN_SECONDS
        self._asking = 0  # id of the process that has a reading under way
        self._told = threading.Event()  # the end of that reading

    def claim(self) -> bool:
        """Tell whether the caller is to take a reading now, and then call `tell` whatever comes."""
        now = self._clock.monotonic()
        if now < self._due:
            return False
        with _guard.lock:
            if now < self._due or self._asking == os.getpid():
                return False
            self._asking = os.getpid()
            self._due = now + READING_SECONDS
            self._meanwhile = 0
            self._told = threading.Event()
            return True

    def await_reading(self, seconds: float) -> None:
        """Wait for a reading that is under way, if nothing is known without it."""
        told = self._told
        if self._asking == os.getpid() and self._known(self._clock.monotonic()) is None:
            told.wait(seconds)

    def tell(self, depth: int | None) -> None:
        """End a reading that was claimed; None: there was no answer."""
        with _guard.lock:
            self._asking = 0
            if depth is not None:
                self._depth, self._asked = depth, self._due - READING_SECONDS
                # What was published while the broker was asked may or may not be in its answer.
                self._since = self._meanwhile
        self._told.set()

    def enter(self, lane: Lane) -> Full | None:
        """Count a job in that is to be published to *lane*, unless there is no room for it."""
        now = self._clock.monotonic()
        with _guard.lock:
            depth = self._known(now)
            if depth is not None and depth >= SHARES[lane] * self.max_queue:
                return Full(depth=depth, retry_after=self._retry_after(depth, lane, now))
            self._count()
        return None

    def count(self) -> None:
        """Count a job in that is published whatever the depth."""
        with _guard.lock:
            self._count()

    def is_full(self, lane: Lane) -> bool:
        """Tell whether *lane* is known to have no room, and it is not time to ask again."""
        now = self._clock.monotonic()
        if now >= self._due:
            return False
        with _guard.lock:
            depth = self._known(now)
        return depth is not None and depth >= SHARES[lane] * self.max_queue

    def depth(self) -> int | None:
        """Return how many jobs are in the lanes; None: not known."""
        with _guard.lock:
            return self._known(self._clock.monotonic())

    def _known(self, now: float) -> int | None:
        if now - self._asked >= KNOWN_SECONDS:
            return None
        return self._depth + self._since

    def _count(self) -> None:
        self._since += 1
        self._meanwhile += 1

    def _retry_after(self, depth: int, lane: Lane, now: float) -> float:
        """Return when enough jobs are done, not before this process asks for the depth again."""
        too_many = depth - SHARES[lane] * self.max_queue + 1
        seconds = min(RETRY_SECONDS_MAX, too_many * self._seconds_per_job)
        return max(seconds, self._due - now) * _random.uniform(1.0, 1.0 + JITTER)
