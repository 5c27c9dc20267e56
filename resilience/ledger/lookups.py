"""Looking into dead letters: which there are, and what was done to them."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, func, select, tuple_

from resilience.ledger.database import Database
from resilience.ledger.letter import AuditEntry, Letter, read_letter
from resilience.ledger.tables import AUDIT, JOBS

AT_ONCE = 200
"""Letters per transaction: few enough to be done well within a statement's timeout."""
PAGE = 5000
"""Ids of letters per statement: any number of them is read, but none of the statements for long."""
AUDIT_LIMIT = 1000
CAUSES_MOST = 100_000
"""Most letters that are counted by cause."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Which:
    """Which dead letters; what is None does not matter, so that `Which()` is all of them.

    Attributes:
        id: Only this one.
        dependency: Whose bulkhead they belonged to.
        task: Name of their task.
        fingerprint: Their cause.
        min_age_seconds: How long they have been dead at least.
        ids: Only these.
        died_by: Only those that were dead at this time, in epoch seconds: what somebody saw then.
    """

    id: str | None = None
    dependency: str | None = None
    task: str | None = None
    fingerprint: str | None = None
    min_age_seconds: float | None = None
    ids: tuple[str, ...] | None = None
    died_by: float | None = None


class LetterLookups:
    """The dead letters of a ledger, as they are; oldest first wherever there is an order."""

    def __init__(self, database: Database, *, redact: frozenset[str]) -> None:
        """Look into *database*; hide arguments whose names are in *redact*."""
        self._database = database
        self._redact = redact

    def find(self, which: Which, *, limit: int) -> list[Letter]:
        """Return the first *limit* of *which* letters."""
        with self._database.reading() as connection:
            rows = connection.execute(self._select(which, *JOBS.c).limit(limit)).mappings().all()
        return [read_letter(row, self._redact) for row in rows]

    def causes(self, which: Which, *, limit: int) -> list[tuple[int, float, float, Letter]]:
        """Return *which* letters by cause, dependency and task: the *limit* largest groups.

        The oldest `CAUSES_MOST` letters are counted, which takes some tenths of a second.

        Returns:
            How many letters each has, when the first and the last of them died, in epoch seconds,
            and one of them.
        """
        same = [JOBS.c[name] for name in ("fingerprint", "dependency", "task")]
        some = self._select(which, JOBS.c.id, JOBS.c.died, *same).limit(CAUSES_MOST).subquery().c
        facts = [func.count(), func.min(some.died), func.max(some.died), func.max(some.id)]
        groups = select(*facts).group_by(some.fingerprint, some.dependency, some.task)
        with self._database.reading() as connection:
            rows = connection.execute(groups.order_by(facts[0].desc(), facts[1]).limit(limit)).all()
            chosen = select(JOBS).where(JOBS.c.id.in_([row[-1] for row in rows]))
            found = connection.execute(chosen).mappings().all()
        # One that is not found was replayed or discarded meanwhile.
        letters = {row["id"]: read_letter(row, self._redact) for row in found}
        return [(*facts, letters[name]) for *facts, name in rows if name in letters]

    def show(self, name: str) -> Letter | None:
        """Return what is known of the job *name*, in whatever state it is; None: nothing."""
        with self._database.reading() as connection:
            row = connection.execute(select(JOBS).where(JOBS.c.id == name)).mappings().one_or_none()
        return read_letter(row, self._redact) if row else None

    def extent(self, which: Which) -> tuple[int, float | None]:
        """Return how many of *which* letters there are, and when the last of them died."""
        sums = self._select(which, func.count(), func.max(JOBS.c.died)).order_by(None)
        with self._database.reading() as connection:
            jobs, newest = connection.execute(sums).one()
        return jobs, newest

    def states(self, ids: Collection[str]) -> dict[str, tuple[str, int]]:
        """Return state and failed calls of those of the jobs *ids* that the ledger still has."""
        found: dict[str, tuple[str, int]] = {}
        columns = select(JOBS.c.id, JOBS.c.state, JOBS.c.attempts)
        with self._database.reading() as connection:
            for some in batches(list(ids)):
                rows = connection.execute(columns.where(JOBS.c.id.in_(some))).all()
                found |= {row.id: (row.state, row.attempts) for row in rows}
        return found

    def audit(self, *, job: str | None = None, limit: int = AUDIT_LIMIT) -> list[AuditEntry]:
        """Return who did what to letters, newest first.

        Args:
            job: Only what was done to this letter, or made this job; None: all.
            limit: Most entries.
        """
        shown = [column for column in AUDIT.c if column.name != "number"]
        entries = select(*shown).order_by(AUDIT.c.number.desc()).limit(limit)
        if job is not None:
            entries = entries.where((AUDIT.c.job == job) | (AUDIT.c.replay == job))
        with self._database.reading() as connection:
            rows = connection.execute(entries).mappings().all()
        return [AuditEntry(**row) for row in rows]

    def _select(self, which: Which, *columns: Any) -> Select[Any]:  # noqa: ANN401 - any column
        dead = select(*columns).where(JOBS.c.died.is_not(None)).order_by(JOBS.c.died, JOBS.c.id)
        for name in ("id", "dependency", "task", "fingerprint"):
            if (value := getattr(which, name)) is not None:
                dead = dead.where(JOBS.c[name] == value)
        if which.min_age_seconds is not None:
            dead = dead.where(JOBS.c.died <= self._database.now - which.min_age_seconds)
        if which.ids is not None:
            dead = dead.where(JOBS.c.id.in_(which.ids))
        if which.died_by is not None:
            dead = dead.where(JOBS.c.died <= which.died_by)
        return dead

    def ids(self, which: Which, limit: int) -> list[str]:
        """Return the ids of the first *limit* of *which* letters."""
        ids: list[str] = []
        page = self._select(which, JOBS.c.id, JOBS.c.died)
        with self._database.reading() as connection:
            while True:
                most = min(PAGE, limit - len(ids))
                rows = connection.execute(page.limit(most)).all()
                ids += [row.id for row in rows]
                if len(rows) < PAGE:
                    return ids
                last = rows[-1]
                page = self._select(which, JOBS.c.id, JOBS.c.died).where(
                    tuple_(JOBS.c.died, JOBS.c.id) > (last.died, last.id),
                    JOBS.c.died >= last.died,  # MariaDB finds no pair in an index
                )


def batches(ids: list[str]) -> Iterator[list[str]]:
    """Return *ids* in parts of at most `AT_ONCE`."""
    return (ids[first : first + AT_ONCE] for first in range(0, len(ids), AT_ONCE))
