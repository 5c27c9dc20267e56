"""Claims on idempotency keys, and the results recorded under them."""

import hashlib
from typing import Any

from sqlalchemy import Double, bindparam, delete, null, select, update

from resilience.ledger.claim import Claimed, Done, Running
from resilience.ledger.database import Database
from resilience.ledger.job import KEY_LENGTH
from resilience.ledger.tables import CLAIMS


class Claims:
    """Idempotency records: one owner at a time has a key, and its result is recorded once.

    An owner is one execution, not one job: two copies of a job need different owners.

    In SQLite only `complete` waits for the disk. A crash of the host may undo a claim, but it also
    ends every owner, as all of them run on that host. A result on the disk implies that everything
    written before it is on the disk, too.
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
        """Claim *key*; a claim by the owner that has it already renews the lease.

        Args:
            key: Names what must run once; it should contain the full name of the task.
            owner: The execution that claims.
            lease_seconds: Seconds until others may claim the key, unless the lease is renewed or
                the key completed.
        """
        name, mine = _fitting(key), {"owner": owner, "lease": lease_seconds}
        while True:
            if self._database.change(self._new, mine | {"key": name}, synced=False):
                return Claimed()
            row = self._database.find(self._held, {"name": name})
            if row is None:  # the owner has released the key since
                continue
            holder, result, left = row
            if left > 0 and (result is not None or holder != owner):
                return Running(holder, left) if result is None else Done(result)
            again = mine | {"name": name, "asker": owner}
            if self._database.change(self._take, again, synced=False):
                return Claimed()

    def renew(self, key: str, *, owner: str, lease_seconds: float) -> bool:
        """Extend the lease to *lease_seconds* from now; return whether *owner* still had it."""
        values = _of(key, owner) | {"lease": lease_seconds}
        return bool(self._database.change(self._renew, values, synced=False))

    def complete(self, key: str, *, owner: str, result: str, keep_seconds: float) -> bool:
        """Record the result of *key*.

        Args:
            key: The key that was claimed.
            owner: The execution that claimed it.
            result: Its result, as JSON.
            keep_seconds: How long later claims get this result.

        Returns:
            Whether *owner* still had the key; if not, nothing is recorded.
        """
        values = _of(key, owner) | {"lease": keep_seconds, "result": result}
        return bool(self._database.change(self._renew, values))

    def release(self, key: str, *, owner: str) -> bool:
        """Give the key back without a result; return whether *owner* still had it."""
        return bool(self._database.change(self._release, _of(key, owner), synced=False))


def _of(key: str, owner: str) -> dict[str, Any]:
    return {"name": _fitting(key), "asker": owner}


def _fitting(key: str) -> str:
    """Return *key*, shortened if it is too long for MariaDB, which would cut it.

    The end of a shortened key is a digest, so that two keys stay different.
    """
    if len(key) <= KEY_LENGTH:
        return key
    digest = hashlib.sha256(key.encode(errors="surrogatepass")).hexdigest()
    return f"{key[: KEY_LENGTH - len(digest) - 1]}#{digest}"
