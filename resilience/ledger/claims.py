"""Who runs what must run once, and what came of it."""

import hashlib
from typing import Any

from sqlalchemy import Delete, Double, Update, bindparam, delete, null, select, update

from resilience.ledger.claim import Claimed, Done, Running
from resilience.ledger.database import Database, count_changes
from resilience.ledger.job import KEY_LENGTH
from resilience.ledger.tables import CLAIMS


class Claims:
    """Idempotency records: a key is run by one owner at a time, and done once.

    An owner is one execution, not one job: of two copies of a job each needs a name of its own.
    """

    def __init__(self, database: Database) -> None:
        """Keep them in *database*."""
        self._database = database
        now, claim = database.now, CLAIMS.c
        this, running = claim.key == bindparam("name"), claim.result.is_(None)
        mine = running & (claim.owner == bindparam("asker"))
        until = now + bindparam("lease", type_=Double)
        left = (claim.until - now).label("left")
        self._new = database.insert_new(CLAIMS).values(until=until)
        self._take = update(CLAIMS).where(this, mine | (claim.until <= now))
        self._take = self._take.values(until=until, result=null())
        self._held = select(claim.owner, claim.result, left).where(this)
        self._renew = update(CLAIMS).where(this, mine).values(until=until)
        self._release = delete(CLAIMS).where(this, mine)

    def claim(self, key: str, *, owner: str, lease_seconds: float) -> Claimed | Running | Done:
        """Ask to run *key*; who has it already may ask again, which renews the lease.

        Args:
            key: What must run once; the full name of the task belongs into it.
            owner: The execution that asks.
            lease_seconds: When the key is free for others unless it is renewed or completed.
        """
        key, mine = _fitting(key), {"owner": owner, "lease": lease_seconds}
        with self._database.stepping() as connection:
            while True:
                if count_changes(connection, self._new, mine | {"key": key}):
                    return Claimed()
                if count_changes(connection, self._take, mine | {"name": key, "asker": owner}):
                    return Claimed()
                row = connection.execute(self._held, {"name": key}).one_or_none()
                if row is not None:  # else it was released meanwhile: ask again
                    return Running(row.owner, row.left) if row.result is None else Done(row.result)

    def renew(self, key: str, *, owner: str, lease_seconds: float) -> bool:
        """Let the lease run out in *lease_seconds* from now; tell whether it is still *owner*'s."""
        return self._change(self._renew, key, owner, {"lease": lease_seconds})

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
        return self._change(self._renew, key, owner, {"lease": keep_seconds, "result": result})

    def release(self, key: str, *, owner: str) -> bool:
        """Give the key back, as it was not done; tell whether it was still *owner*'s."""
        return self._change(self._release, key, owner, {})

    def _change(
        self, statement: Update | Delete, key: str, owner: str, values: dict[str, Any]
    ) -> bool:
        with self._database.stepping() as connection:
            mine = {"name": _fitting(key), "asker": owner}
            return bool(count_changes(connection, statement, mine | values))


def _fitting(key: str) -> str:
    """Return *key*, or what stands for it if MariaDB would cut it, and take two keys for one."""
    if len(key) <= KEY_LENGTH:
        return key
    digest = hashlib.sha256(key.encode(errors="surrogatepass")).hexdigest()
    return f"{key[: KEY_LENGTH - len(digest) - 1]}#{digest}"
