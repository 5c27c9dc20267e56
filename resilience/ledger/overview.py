"""What the ledger holds, added up: dead letters by cause, and waiting jobs by when they are due."""

from typing import Any

from sqlalchemy import ColumnElement, Select, case, func, select

from resilience.ledger.database import Database
from resilience.ledger.job import State
from resilience.ledger.tables import JOBS

WITHIN_SECONDS = (0, 60, 600, 3600)


class Overview:
    """Sums over all jobs of a ledger, as plain values. They take longer the more jobs there are."""

    def __init__(self, database: Database) -> None:
        """Look into *database*."""
        self._database = database

    def causes(self, *, limit: int) -> list[dict[str, Any]]:
        """Return the *limit* causes with the most dead letters, these first.

        Each has `fingerprint`, `jobs`, and when the first and the last of them died, in epoch
        seconds: `oldest` and `newest`.
        """
        cause, died, jobs = JOBS.c.fingerprint, JOBS.c.died, func.count().label("jobs")
        times = func.min(died).label("oldest"), func.max(died).label("newest")
        groups = select(cause, jobs, *times).where(died.is_not(None)).group_by(cause)
        return self._rows(groups.order_by(jobs.desc(), cause).limit(limit))

    def due(self) -> list[dict[str, Any]]:
        """Return when the jobs that wait are due, by `dependency` and `state`.

        Each row has `jobs`, `first_seconds` until the first is due, which is negative if it is
        overdue, and how many are due `within_0`, `within_60`, `within_600` and `within_3600`
        seconds from now.
        """
        now, due = self._database.now, JOBS.c.due

        def within(seconds: int) -> ColumnElement[int]:
            jobs = func.sum(case((due <= now + seconds, 1), else_=0))
            return jobs.label(f"within_{seconds}")

        place = JOBS.c.dependency, JOBS.c.state
        sums = func.count().label("jobs"), (func.min(due) - now).label("first_seconds")
        found = select(*place, *sums, *map(within, WITHIN_SECONDS)).where(due.is_not(None))
        waiting = found.where(JOBS.c.state != State.DEAD)
        return self._rows(waiting.group_by(*place).order_by(*place))

    def _rows(self, statement: Select[Any]) -> list[dict[str, Any]]:
        with self._database.reading() as connection:
            return [dict(row) for row in connection.execute(statement).mappings()]
