"""Counts in one process what the pulse adds to the totals of the fleet."""

import functools
import json
import threading
from contextlib import suppress

from resilience.broker.beside import Beside
from resilience.clock import SystemClock
from resilience.monitor.metrics import METRICS
from resilience.pulse import Pulse
from resilience.store.fleet import Batch
from resilience.text import get_logger

logger = get_logger("resilience")

SEND_SECONDS = 1.0
"""Least time between two batches of a process, and longest time until a count is sent."""
BATCH_MAX = 128
"""Most series in a batch: the store serves nobody else while it adds them."""


@functools.lru_cache(maxsize=8192)
def name_of(*series: str) -> str:
    """Return the name of a series in the store."""
    return json.dumps(series)


class Tally:
    """Counts, and hands the counts to the pulse batch by batch.

    Any thread may count. A batch is handed out again until the store has confirmed it; meanwhile
    further counts wait in this process, one number for each series. A thread sends the counts that
    no call of this process carries. It starts with the first count and ends when nothing waits.
    SIGKILL loses what was counted in the last second.
    """

    def __init__(self, pulse: Pulse) -> None:
        """Count for *pulse*, which must `carry` this tally."""
        self._pulse = pulse
        self._refused = ""
        self.restart()

    def restart(self) -> None:
        """Forget what was counted before the fork: the parent sends it."""
        # Not a plain lock: a signal handler may count while its own thread does.
        self._lock = threading.RLock()
        self._counts: dict[str, float] = {}
        self._exemplars: dict[str, str] = {}
        self._batch: Batch | None = None
        self._number, self._due = 0, 0.0
        self._sender: Beside | None = None

    def add(self, *series: str, amount: float = 1.0, exemplar: str = "") -> None:
        """Add to a counter.

        Args:
            *series: The metric, then its labels.
            amount: How much.
            exemplar: JSON of an exemplar.
        """
        name = name_of(*series)
        with self._lock:
            self._counts[name] = self._counts.get(name, 0.0) + amount
            if exemplar:
                self._exemplars[name] = exemplar
        if self._sender is None:
            self._start()

    def observe(self, metric: str, label: str, seconds: float) -> None:
        """Add *seconds* to a histogram."""
        bound = next((top for top in METRICS[metric].buckets if seconds <= top), "+Inf")
        self.add(metric, label, str(bound))
        self.add(metric, label, "sum", amount=max(0.0, seconds))

    def batch(self) -> Batch | None:
        """Return the batch that is due: the last one again until it is settled."""
        now = SystemClock.monotonic()
        with self._lock:
            if self._batch is None and self._counts and now >= self._due:
                self._number, self._due = self._number + 1, now + SEND_SECONDS
                names = list(self._counts)[:BATCH_MAX]
                fields = {
                    "batch": self._number,
                    "counts": {name: self._counts.pop(name) for name in names},
                    "exemplars": self._exemplars,
                }
                self._exemplars = {}
                self._batch = Batch(number=self._number, text=json.dumps(fields))
            return self._batch

    def settle(self, number: int, why_not: str) -> None:
        """Forget batch *number* if the store has added it; then *why_not* is empty."""
        if why_not != self._refused:
            self._refused = why_not
            logger.error("metrics are not added up: %.200s", why_not or "they are again")
        with self._lock:
            if not why_not and self._batch is not None and self._batch.number == number:
                self._batch = None

    def flush(self) -> None:
        """Send everything now, batch by batch; give up if the store is away."""
        while self._counts or self._batch is not None:
            self._due = 0.0
            self._pulse.refresh()
            if self._batch is not None:
                return

    def _start(self) -> None:
        """Start a thread that sends the counts, as this process may call nobody again."""
        with self._lock:
            if self._sender is None:
                sender = Beside("counts", self._send, wait=_pause)
                with suppress(RuntimeError):  # there may be no thread; the next count tries again
                    sender.start()
                    self._sender = sender

    def _send(self) -> float | None:
        with self._lock:
            if not self._counts and self._batch is None:
                self._sender = None
                return None
            early = self._due - SystemClock.monotonic()
        if early <= 0 or self._batch is not None:
            self.flush()
        return max(early, 0.0)


def _pause(seconds: float) -> None:
    threading.Event().wait(seconds or SEND_SECONDS)
