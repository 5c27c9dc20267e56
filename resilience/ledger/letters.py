"""Dead letters: jobs that were given up, and what an operator does with them."""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Double,
    Row,
    Select,
    bindparam,
    delete,
    func,
    insert,
    null,
    select,
    tuple_,
    update,
)

from resilience.ledger.database import Database
from resilience.ledger.job import State
from resilience.ledger.letter import AuditEntry, Letter, Purged, read_letter
from resilience.ledger.tables import AUDIT, CLAIMS, JOBS

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
    """

    id: str | None = None
    dependency: str | None = None
    task: str | None = None
    fingerprint: str | None = None
    min_age_seconds: float | None = None


class Letters:
    """The dead letters of a ledger; oldest first wherever there is an order."""

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

    def replay(
        self,
        which: Which,
        *,
        actor: str,
        reason: str,
        new_id: Callable[[], str],
        limit: int,
        interval_seconds: float = 0.0,
        dry_run: bool = False,
    ) -> dict[str, str | None]:
        """Make jobs of the first *limit* of *which* letters again.

        A letter becomes, in one step, a scheduled job with a new id, the letter's id as origin, the
        errors so far, no attempts and age zero. Killed half-way, every letter is still dead or
        replayed once: the same replay again does the rest.

        Args:
            which: Which letters.
            actor: Who replays them, for the audit.
            reason: Why, for the audit.
            new_id: Makes the id of a job.
            limit: Most letters; a sample first is a small one.
            interval_seconds: How much later than the one before each job is due.
            dry_run: Change nothing.

        Returns:
            The new ids by the old ones; None in a dry run.
        """
        ids = self._ids(which, limit)
        if dry_run:
            return dict.fromkeys(ids)
        replayed: dict[str, str | None] = {}
        for some in _batches(ids):
            # Before the transaction: none is held while something else is called.
            names = [new_id() for _ in some]
            with self._database.writing() as connection:
                letters = self._lock(connection, some)
                pairs = dict(zip((letter.id for letter in letters), names, strict=False))
                self._revive(connection, pairs, interval_seconds, first=len(replayed))
                self._note(connection, letters, "replay", actor, reason, pairs)
            replayed |= pairs
        return replayed

    def discard(
        self,
        which: Which,
        *,
        actor: str,
        reason: str,
        limit: int,
        among: Collection[str] | None = None,
        dry_run: bool = False,
    ) -> list[str]:
        """Forget the first *limit* of *which* letters; only the audit remembers.

        Args:
            which: Which letters.
            actor: Who discards them, for the audit.
            reason: Why, for the audit.
            limit: Most letters.
            among: Ids; letters that have none of them stay. None: all may be forgotten.
            dry_run: Change nothing.

        Returns:
            Their ids; of a dry run, those that would have been forgotten.
        """
        ids = self._ids(which, limit)
        if among is not None:
            chosen = frozenset(among)
            ids = [name for name in ids if name in chosen]
        if dry_run:
            return ids
        discarded: list[str] = []
        for some in _batches(ids):
            with self._database.writing() as connection:
                letters = self._lock(connection, some)
                names = [letter.id for letter in letters]
                connection.execute(delete(JOBS).where(JOBS.c.id.in_(names)))
                self._note(connection, letters, "discard", actor, reason, {})
            discarded += names
        return discarded

    def purge(self, *, older_than_seconds: float) -> Purged:
        """Forget letters that died, and audit entries that were written, longer ago than that.

        Idempotency records are forgotten when their own time is over.
        """
        now = self._database.now
        before = now - older_than_seconds
        return Purged(
            letters=self._purge(JOBS.c.died, before),
            audit=self._purge(AUDIT.c.at, before),
            claims=self._purge(CLAIMS.c.until, now),
        )

    def _select(self, which: Which, *columns: Any) -> Select[Any]:  # noqa: ANN401 - any column
        dead = select(*columns).where(JOBS.c.died.is_not(None)).order_by(JOBS.c.died, JOBS.c.id)
        for name in ("id", "dependency", "task", "fingerprint"):
            if (value := getattr(which, name)) is not None:
                dead = dead.where(JOBS.c[name] == value)
        if which.min_age_seconds is not None:
            dead = dead.where(JOBS.c.died <= self._database.now - which.min_age_seconds)
        return dead

    def _ids(self, which: Which, limit: int) -> list[str]:
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

    def _lock(self, connection: Connection, ids: list[str]) -> list[Row[Any]]:
        """Return those of the letters *ids* that are still there; nobody else changes them now.

        Waits for what is locked: whoever locked it may be dead, and the letter is left then.
        """
        columns = [JOBS.c[name] for name in ("id", "task", "died")]
        # All lock in the order of the key: no two wait for each other.
        chosen = select(*columns).where(JOBS.c.id.in_(ids)).order_by(JOBS.c.id)
        rows = {row.id: row for row in connection.execute(chosen.with_for_update())}
        return [row for name in ids if (row := rows.get(name)) and row.died is not None]

    def _revive(
        self, connection: Connection, pairs: dict[str, str], interval: float, *, first: int
    ) -> None:
        now = self._database.now
        fresh = {"state": State.SCHEDULED, "attempts": 0, "dispatches": 0, "born": now}
        nothing = dict.fromkeys(("died", "reason", "fingerprint", "owner"), null())
        again = (
            update(JOBS)
            .where(JOBS.c.id == bindparam("old"))
            .values(
                id=bindparam("new"),
                origin=bindparam("old"),
                due=now + bindparam("delay", type_=Double),
                **fresh,
                **nothing,
            )
        )
        rows = [
            {"old": old, "new": new, "delay": place * interval}
            for place, (old, new) in enumerate(pairs.items(), first)
        ]
        if rows:
            connection.execute(again, rows)

    def _note(
        self,
        connection: Connection,
        letters: list[Row[Any]],
        action: str,
        actor: str,
        reason: str,
        replays: dict[str, str],
    ) -> None:
        said = {"action": action, "actor": actor, "reason": reason}
        rows = [
            {**said, "job": letter.id, "task": letter.task, "replay": replays.get(letter.id)}
            for letter in letters
        ]
        if rows:
            connection.execute(insert(AUDIT).values(at=self._database.now), rows)

    def _purge(self, time: Column[float], before: ColumnElement[float]) -> int:
        return sum(self._purged(time, before))

    def _purged(self, time: Column[float], before: ColumnElement[float]) -> Iterator[int]:
        table = time.table
        [key] = table.primary_key.columns
        # In order: else PostgreSQL reads the table from its start, each time past what is deleted.
        old = select(key).where(time <= before).order_by(time).limit(AT_ONCE)
        while True:
            with self._database.writing() as connection:
                names = connection.scalars(old.with_for_update(skip_locked=True)).all()
                connection.execute(delete(table).where(key.in_(names)))
            yield len(names)
            if len(names) < AT_ONCE:
                return


def _batches(ids: list[str]) -> Iterator[list[str]]:
    return (ids[first : first + AT_ONCE] for first in range(0, len(ids), AT_ONCE))
