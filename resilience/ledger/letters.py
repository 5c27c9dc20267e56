"""Dead letters: jobs that were given up, and what an operator does with them."""

from collections.abc import Callable, Collection
from typing import Any

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Double,
    Row,
    bindparam,
    delete,
    insert,
    null,
    select,
    update,
)

from resilience.ledger.job import State
from resilience.ledger.letter import Purged
from resilience.ledger.lookups import AT_ONCE, LetterLookups, Which, batches
from resilience.ledger.tables import AUDIT, CLAIMS, JOBS


class Letters(LetterLookups):
    """The dead letters of a ledger; oldest first wherever there is an order."""

    def note(self, action: str, name: str, *, actor: str, reason: str) -> None:
        """Keep in the audit that *actor* ordered *action* about the dependency or queue *name*."""
        row = {"action": action, "actor": actor, "reason": reason, "job": name, "task": ""}
        with self._database.writing() as connection:
            connection.execute(insert(AUDIT).values(at=self._database.now), row)

    def replay(
        self,
        which: Which,
        *,
        actor: str,
        reason: str,
        new_id: Callable[[], str],
        limit: int,
        interval_seconds: float = 0.0,
        edit: Callable[[str], str] | None = None,
    ) -> dict[str, str]:
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
            edit: Makes the new message of a letter's; what it raises leaves the letters dead.

        Returns:
            The new ids by the old ones.
        """
        replayed: dict[str, str] = {}
        order = {"action": "edit" if edit else "replay", "actor": actor, "reason": reason}
        for some in batches(self.ids(which, limit)):
            # Before the transaction: none is held while something else is called.
            names = [new_id() for _ in some]
            with self._database.writing() as connection:
                letters = self._lock(connection, some)
                pairs = dict(zip((letter.id for letter in letters), names, strict=False))
                if edit:
                    for name in pairs:
                        row = JOBS.c.id == name
                        text = connection.scalars(select(JOBS.c.message).where(row)).one()
                        connection.execute(update(JOBS).where(row).values(message=edit(text)))
                self._revive(connection, pairs, interval_seconds, first=len(replayed))
                self._note(connection, letters, order, pairs)
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
    ) -> list[str]:
        """Forget the first *limit* of *which* letters; return their ids. The audit remembers them.

        Args:
            which: Which letters.
            actor: Who discards them, for the audit.
            reason: Why, for the audit.
            limit: Most letters.
            among: Ids; letters that have none of them stay. None: all may be forgotten.
        """
        chosen = None if among is None else frozenset(among)
        ids = [name for name in self.ids(which, limit) if chosen is None or name in chosen]
        discarded: list[str] = []
        order = {"action": "discard", "actor": actor, "reason": reason}
        for some in batches(ids):
            with self._database.writing() as connection:
                letters = self._lock(connection, some)
                names = [letter.id for letter in letters]
                connection.execute(delete(JOBS).where(JOBS.c.id.in_(names)))
                self._note(connection, letters, order, {})
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
        values: dict[str, Any] = {"id": bindparam("new"), "origin": bindparam("old")}
        values["due"] = now + bindparam("delay", type_=Double)
        values |= {"state": State.SCHEDULED, "attempts": 0, "dispatches": 0, "born": now}
        values |= dict.fromkeys(("died", "reason", "fingerprint", "owner"), null())
        again = update(JOBS).where(JOBS.c.id == bindparam("old")).values(values)
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
        order: dict[str, str],
        replays: dict[str, str],
    ) -> None:
        rows = [
            {**order, "job": letter.id, "task": letter.task, "replay": replays.get(letter.id)}
            for letter in letters
        ]
        if rows:
            connection.execute(insert(AUDIT).values(at=self._database.now), rows)

    def _purge(self, time: Column[float], before: ColumnElement[float]) -> int:
        table, purged = time.table, 0
        [key] = table.primary_key.columns
        # In order: else PostgreSQL reads the table from its start, each time past what is deleted.
        old = select(key).where(time <= before).order_by(time).limit(AT_ONCE)
        while True:
            with self._database.writing() as connection:
                names = connection.scalars(old.with_for_update(skip_locked=True)).all()
                connection.execute(delete(table).where(key.in_(names)))
            purged += len(names)
            if len(names) < AT_ONCE:
                return purged
