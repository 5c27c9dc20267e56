"""Counts in one process what the pulse adds to the totals of the fleet."""

import functools
import json
import logging
import threading
from collections.abc import Iterable, Sequence

from resilience.broker.beside import Beside
from resilience.clock import SystemClock
from resilience.monitor.metrics import COUNTED
from resilience.pulse import Pulse
from resilience.store.fleet import Batch, Evidence

logger = logging.getLogger("resilience")

SEND_SECONDS = 1.0
"""A process sends a batch so often at most, and so long after a count at the latest."""
BATCH_MAX = 256
"""Most series in a batch: the store adds that many in about 0.3 ms."""


@functools.lru_cache(maxsize=8192)
def series(*parts: str) -> str:
    """Return the name of a series in the store: the metric and its labels."""
    return json.dumps(parts)


class Tally:
    """Counts, and hands them to the pulse batch by batch.

    Any thread may count. A batch is handed out again until the store has said that it was added;
    what is counted meanwhile waits in this process, one number for each series. A thread sends what
    no call of this process does. It is started by the first count and waits while nothing is
    counted. SIGKILL loses what was counted in the last second.
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
        self._totals: dict[str, float] = {}
        self._answers: dict[str, float] = {}
        self._exemplars: dict[str, str] = {}
        self._minutes: set[str] = set()
        self._batch: Batch | None = None
        self._number, self._due = 0, 0.0
        self._sender: Beside | None = None

    def add(self, *parts: str, amount: float = 1.0, exemplar: str = "") -> None:
        """Add *amount* to the counter of these *parts*, and note an *exemplar* of it."""
        name = series(*parts)
        with self._lock:
            self._totals[name] = self._totals.get(name, 0.0) + amount
            if exemplar:
                self._exemplars[name] = exemplar
        self._wake()

    def observe(self, metric: str, label: str, seconds: float) -> None:
        """Add *seconds* to a histogram."""
        bound = next((one for one in COUNTED[metric].buckets if seconds <= one), "+Inf")
        self.add(metric, label, str(bound))
        self.add(metric, label, "sum", amount=max(0.0, seconds))

    def answer(self, parts: Iterable[str], *, below_full: str) -> None:
        """Count an answer; *below_full* is the dependency of one that is not FULL."""
        name = series(*parts)
        with self._lock:
            self._answers[name] = self._answers.get(name, 0.0) + 1
            if below_full:
                self._minutes.add(series(below_full))
        self._wake()

    def batch(self, evidence: Sequence[Evidence]) -> Batch | None:
        """Count the calls of *evidence*, and return what is due."""
        for one in evidence:
            for result, calls in (("ok", one.ok), ("failed", one.failed), ("slow", one.slow)):
                if calls:
                    self.add("calls", one.name, result, amount=calls)
        now = SystemClock.monotonic()
        with self._lock:
            if self._batch is None and now >= self._due and (self._totals or self._answers):
                self._number, self._due = self._number + 1, now + SEND_SECONDS
                self._batch = Batch(number=self._number, text=self._text())
            return self._batch

    def _text(self) -> str:
        """Take what goes into the next batch."""
        minutes, self._minutes = self._minutes, set()
        exemplars, self._exemplars = self._exemplars, {}
        fields = {
            "batch": self._number,
            "totals": _taken(self._totals),
            "answers": _taken(self._answers),
            "exemplars": exemplars,
            "minutes": sorted(minutes),
        }
        return json.dumps(fields)

    def settle(self, number: int, why_not: str) -> None:
        """Forget that batch if it was added; *why_not* is empty then."""
        if why_not != self._refused:
            self._refused = why_not
            logger.error("the store adds no counts of metrics: %.200s", why_not or "it does again")
        with self._lock:
            if not why_not and self._batch is not None and self._batch.number == number:
                self._batch = None

    def flush(self, **_: object) -> None:
        """Send everything now, as the process ends; give up if the store is away."""
        while self._waiting:
            self._due = 0.0
            self._pulse.refresh()
            if self._batch is not None:
                return

    @property
    def _waiting(self) -> bool:
        return bool(self._totals or self._answers or self._batch)

    def _wake(self) -> None:
        """See to it that what was counted is sent, though this process may call nobody again."""
        if self._sender is not None:
            return
        with self._lock:
            if self._sender is None:
                self._sender = Beside("counts", self._send, wait=_pause)
                try:
                    self._sender.start()
                except RuntimeError:  # there is no thread to be had; the next count tries again
                    self._sender = None

    def _send(self) -> float | None:
        with self._lock:
            if not self._waiting:
                self._sender = None
                return None
            early = self._due - SystemClock.monotonic()
        if early <= 0 or self._batch is not None:
            self._pulse.refresh()
        return max(early, 0.0)


def _pause(seconds: float) -> None:
    threading.Event().wait(seconds or SEND_SECONDS)


def _taken(counts: dict[str, float]) -> dict[str, float]:
    return {name: counts.pop(name) for name in list(counts)[:BATCH_MAX]}
