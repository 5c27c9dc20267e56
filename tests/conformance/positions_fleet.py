"""Processes that share positions through a store."""

from resilience.consistency.shared import Sample, SharedPositions
from resilience.store import Store


class Process:
    """One process of the fleet, with a client of its own."""

    def __init__(self, url: str, namespace: str) -> None:
        self.store = Store(url, namespace=namespace, timeout_seconds=10)
        self.positions = SharedPositions(self.store)

    def now(self) -> float:
        """Return fleet time."""
        return self.positions.exchange("nobody").now

    def exchange(self, sample: Sample | None = None, after: float = 0.0) -> tuple[Sample, ...]:
        """Share *sample* and return those that others saw after *after*."""
        return self.positions.exchange("main", sample=sample, after=after).samples
