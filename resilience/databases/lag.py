"""How far replicas are behind, by what the fleet has seen of the primary."""

from bisect import insort
from contextlib import suppress
from typing import Final

from resilience.clock import Clock
from resilience.consistency import Position
from resilience.consistency.shared import LagOrder, Sample, Seen, SharedPositions
from resilience.databases.measured import Measured
from resilience.errors import StoreUnavailableError

EXCHANGE_SECONDS: Final = 1.0
"""A process that reads shares what it knows of the primary so often."""
DOUBT_SECONDS: Final = 0.1
SAMPLES_MAX: Final = 1200


class PrimaryHistory:
    """Where the primary was, and when, as any process of the fleet saw it.

    The usual formulas ask the replica, and read 0 when its link is cut. A replica that has replayed
    what the primary had written at some moment shows everything that was committed until then:
    it lags by no more than the time since.

    Attributes:
        order: What an operator allows; None: nothing special.
    """

    def __init__(self, source: str, shared: SharedPositions | None, clock: Clock) -> None:
        """Begin with no knowledge; *shared* None: no other process tells."""
        self._source = source
        self._shared = shared
        self._clock = clock
        self._samples: list[Sample] = []
        self._own: Sample | None = None
        self._heard = 0.0
        self._due = float("-inf")
        self.order: LagOrder | None = None

    def due(self) -> bool:
        """Tell whether it is time to exchange again, and claim the turn."""
        now = self._clock.monotonic()
        if now < self._due:
            return False
        self._due = now + EXCHANGE_SECONDS
        return True

    @property
    def newest(self) -> Sample | None:
        """The latest that is known of the primary."""
        return self._samples[-1] if self._samples else None

    def note(self, at: float, position: Position) -> None:
        """Note where this process saw the primary, whom it asked at fleet time *at*.

        The others learn it with the next exchange. The store keeps nothing from the future, and
        what a process knows of its clock is in doubt: a lag is rather named a little too great.
        """
        self._own = Sample(at=at - DOUBT_SECONDS, position=position)
        self._add(self._own)

    def exchange(self) -> None:
        """Tell the fleet what this process saw and learn what the others did.

        Nobody learns anything while the store is down.
        """
        if self._shared is not None:
            own, after = self._own, self._heard
            with suppress(StoreUnavailableError):
                self._learn(self._shared.exchange(self._source, sample=own, after=after))

    def _learn(self, seen: Seen) -> None:
        self.order = seen.order
        for sample in seen.samples:
            self._heard = max(self._heard, sample.at)
            self._add(sample)

    def _add(self, sample: Sample) -> None:
        if not self._samples or sample.at > self._samples[-1].at:
            self._samples.append(sample)
        elif sample not in self._samples:
            insort(self._samples, sample, key=lambda one: one.at)
        del self._samples[:-SAMPLES_MAX]

    def lag(self, position: Position, now: float) -> float | None:
        """Return the longest time by which somebody at *position* may be behind; None: unknown."""
        for sample in reversed(self._samples):
            if position.covers(sample.position):
                return max(0.0, now - sample.at)
        return None

    def why_not(self, measured: Measured) -> str | None:
        """Return why a server that says this does not replay the primary; None: it does."""
        if not measured.is_replica:
            return "it is no replica: it takes writes"
        if measured.went_back:
            return "it shows less than it did before: is it an old backup?"
        newest = self.newest
        if newest is not None and measured.system:
            lines = newest.position.lines
            if not any(line.startswith(f"{measured.system}/") for line in lines):
                return f"it belongs to the cluster {measured.system}, the primary to another one"
        return None

    def is_beside(self, measured: Measured) -> bool:
        """Tell whether a server and the primary have no line of history in common."""
        newest = self.newest
        if newest is None or not newest.position:
            return False
        lines = newest.position.lines
        return not any(line in lines for line in measured.position.lines)
