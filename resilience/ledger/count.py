"""Counts of jobs."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from resilience.ledger.job import State

COUNT_LIMIT = 1_000
"""Jobs of one dependency, queue and state are counted up to this number, which takes little time
and shows how bad it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """How many jobs of a dependency are in a state.

    Attributes:
        state: A `State`, or the name of one that only another version of this library knows.
        dependency: The dependency.
        jobs: Number of jobs.
        overdue_seconds: How long the first of them has been due; negative if it will be due later.
            A dispatched job is due when its lease expires. None for dead jobs, which are never due.
        more: Whether there are more than `jobs`, because counting ended at the limit.
    """

    state: State | str
    dependency: str
    jobs: int
    overdue_seconds: float | None
    more: bool = False

    def plus(self, other: "Count") -> "Count":
        """Return the sum of this count and *other*, of the same state and dependency."""
        overdue = [one for one in (self.overdue_seconds, other.overdue_seconds) if one is not None]
        return replace(
            self,
            jobs=self.jobs + other.jobs,
            overdue_seconds=max(overdue, default=None),
            more=self.more or other.more,
        )

    @property
    def amount(self) -> str:
        """The number of jobs as text, such as `1000+` if there are more."""
        return f"{self.jobs}+" if self.more else f"{self.jobs}"


def add_up(rows: Iterable[Iterable[Any]], limit: int | None) -> list[Count]:
    """Return the counts of *rows*, with the queues of each dependency added up.

    Args:
        rows: State, dependency, number of jobs and seconds overdue, a row for each queue.
        limit: Number up to which jobs were counted. A row with more says that there are more. None:
            all were counted.
    """
    counts: dict[tuple[str, str], Count] = {}
    for name, dependency, jobs, overdue in rows:
        most = jobs if limit is None else limit
        count = Count(
            state=_state(name),
            dependency=dependency,
            jobs=min(jobs, most),
            overdue_seconds=overdue,
            more=jobs > most,
        )
        key = (count.state, dependency)
        counts[key] = count.plus(counts[key]) if key in counts else count
    return [counts[key] for key in sorted(counts)]


def _state(name: str) -> State | str:
    """Return the state called *name*; its bare name if this version knows no such state."""
    try:
        return State(name)
    except ValueError:
        return name
