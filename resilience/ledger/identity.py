"""What tells a ledger from any other, also from one with the same address on another host."""

import platform
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import select

from resilience.ledger.database import Database
from resilience.ledger.tables import IDENTITY

BOOT = Path("/proc/sys/kernel/random/boot_id")
"""The same in all containers of a host; another after each start of the host."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Which ledger it is.

    Attributes:
        id: Made with the schema; a copy of the database has the same.
        host: Where its file is; empty for a database server.
        place: Its address without the password, for people; with the host's name if it is a file.
    """

    id: str
    host: str
    place: str


def read_identity(database: Database) -> Identity:
    """Return the identity of the ledger in *database*; errors as `Database.reading`."""
    with database.reading() as connection:
        found: str = connection.scalars(select(IDENTITY.c.id)).one()
    if not database.is_file:
        return Identity(id=found, host="", place=database.place)
    place = f"{database.place} on {platform.node()}"
    return Identity(id=found, host=_host(), place=place)


def _host() -> str:
    try:
        return BOOT.read_text().strip()
    except OSError:  # not on Linux
        return platform.node()
