"""Who runs what must run once, and what came of it."""

from dataclasses import dataclass

from sqlalchemy import Delete, Update, delete, null, or_, select, update

from resilience.ledger.database import Database, insert_new
from resilience.ledger.tables import CLAIMS


@dataclass(frozen=True, slots=True)
class Claimed:
    """The key is the caller's until its lease runs out."""


@dataclass(frozen=True, slots=True)
class Running:
    """Somebody else has the key.

    Attributes:
        owner: Who.
        seconds: When the lease runs out unless it is renewed.
    """

    owner: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Done:
    """It was done before.

    Attributes:
        result: What came of it, as JSON.
    """

    result: str


class Claims:
    """Idempotency records: a key is run by one owner at a time, and done once.

    An owner is one execution, not one job: of two copies of a job each needs a name of its own.
    """

    def __init__(self, database: Database) -> None:
        """Keep them in *database*."""
        self._database = database

    def claim(self, key: str, *, owner: str, lease_seconds: float) -> Claimed | Running | Done:
        """Ask to run *key*; who has it already may ask again, which renews the lease.

        Args:
            key: What must run once; the full name of the task belongs into it.
            owner: The execution that asks.
            lease_seconds: When the key is free for others unless it is renewed or completed.
        """
        now = self._database.now()
        mine = {"owner": owner, "until": now + lease_seconds, "result": null()}
        running = CLAIMS.c.result.is_(None)
        free = or_(CLAIMS.c.until <= now, running & (CLAIMS.c.owner == owner))
        left = (CLAIMS.c.until - now).label("left")
        with self._database.writing() as connection:
            new = insert_new(CLAIMS, connection.dialect.name).values(key=key, **mine)
            taken = update(CLAIMS).where(CLAIMS.c.key == key, free).values(**mine)
            held = select(CLAIMS.c.owner, CLAIMS.c.result, left).where(CLAIMS.c.key == key)
            while True:
                if any(connection.execute(step).rowcount for step in (new, taken)):
                    return Claimed()
                row = connection.execute(held).one_or_none()
                if row is not None:  # else it was released meanwhile: ask again
                    return Running(row.owner, row.left) if row.result is None else Done(row.result)

    def renew(self, key: str, *, owner: str, lease_seconds: float) -> bool:
        """Let the lease run out in *lease_seconds* from now; tell whether it is still *owner*'s."""
        until = self._database.now() + lease_seconds
        return self._change(update(CLAIMS).values(until=until), key, owner)

    def complete(self, key: str, *, owner: str, result: str, keep_seconds: float) -> bool:
        """Record that it is done.

        Args:
            key: What was done.
            owner: Who did it.
            result: What came of it, as JSON.
            keep_seconds: How long who asks is told so.

        Returns:
            Whether it was still *owner*'s; if not, what others recorded stays.
        """
        until = self._database.now() + keep_seconds
        return self._change(update(CLAIMS).values(until=until, result=result), key, owner)

    def release(self, key: str, *, owner: str) -> bool:
        """Give the key back, as it was not done; tell whether it was still *owner*'s."""
        return self._change(delete(CLAIMS), key, owner)

    def _change(self, statement: Update | Delete, key: str, owner: str) -> bool:
        own = CLAIMS.c.key == key, CLAIMS.c.owner == owner, CLAIMS.c.result.is_(None)
        with self._database.writing() as connection:
            return bool(connection.execute(statement.where(*own)).rowcount)
