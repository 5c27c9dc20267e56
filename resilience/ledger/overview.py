"""What the ledger holds, added up: dead letters by cause, and jobs by when they are due."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Select, case, func, select

from resilience.ledger.database import Database
from resilience.ledger.job import State
from resilience.ledger.tables import JOBS

DUE_SECONDS = (0.0, 60.0, 600.0, 3600.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """Dead letters that seem to have one cause. Times are epoch seconds.

    Attributes:
        fingerprint: The cause.
        jobs: How many letters there are.
        oldest: When the first of them died.
        newest: When the last of them died.
    """

    fingerprint: str | None
    jobs: int
    oldest: float
    newest: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """When the jobs of a dependency that wait are due.

    Attributes:
        dependency: Whose jobs.
        state: `outbox`, `scheduled` or `dispatched`.
        jobs: How many there are.
        within: How many are due now, and within one minute, ten minutes and an hour.
        first_seconds: Seconds until the first is due; negative: for so long already.
    """

    dependency: str
    state: str
    jobs: int
    within: tuple[int, ...]
    first_seconds: float


class Overview:
    """Sums over all jobs of a ledger. They take longer the more jobs there are."""

    def __init__(self, database: Database) -> None:
        """Look into *database*."""
        self._database = database

    def causes(self, *, limit: int) -> list[Cause]:
        """Return the *limit* causes with the most dead letters."""
        died, jobs = JOBS.c.died, func.count().label("jobs")
        columns = (JOBS.c.fingerprint, jobs, func.min(died).label("oldest"))
        groups = select(*columns, func.max(died).label("newest")).where(died.is_not(None))
        groups = groups.group_by(JOBS.c.fingerprint).order_by(jobs.desc(), JOBS.c.fingerprint)
        return [Cause(**row._mapping) for row in self._rows(groups.limit(limit))]  # noqa: SLF001 - a row's public name for it

    def due(self) -> list[Due]:
        """Return when the jobs that wait are due, by dependency and state."""
        now, due = self._database.now, JOBS.c.due

        def by(seconds: float) -> ColumnElement[int]:
            return func.sum(case((due <= now + seconds, 1), else_=0))

        place = (JOBS.c.dependency, JOBS.c.state)
        columns = (*place, func.count(), func.min(due) - now, *map(by, DUE_SECONDS))
        found = select(*columns).where(JOBS.c.state != State.DEAD, due.is_not(None))
        return [
            Due(
                dependency=row[0],
                state=row[1],
                jobs=row[2],
                first_seconds=row[3],
                within=tuple(map(int, row[4:])),
            )
            for row in self._rows(found.group_by(*place).order_by(*place))
        ]

    def _rows(self, statement: Select[Any]) -> list[Any]:
        with self._database.reading() as connection:
            return list(connection.execute(statement).all())
