"""A ledger that is a file holds all arguments: no other user may read it, or have made it."""

import os
import sqlite3
import stat
from contextlib import suppress
from pathlib import Path
from urllib.parse import unquote, urlsplit

from sqlalchemy import URL

SIDE_FILES = ("-wal", "-shm", "-journal")
"""What SQLite keeps beside a database; it makes them with the mode of the database."""


def path_of(url: URL) -> Path | None:
    """Return the file of *url*; None: SQLite keeps that database in memory."""
    name = str(url.database)
    if name.startswith("file:"):
        name = unquote(urlsplit(name).path)
    in_memory = name.startswith(":") or url.query.get("mode") == "memory"
    return None if in_memory else Path(name)


def keep_private(path: Path) -> None:
    """Make *path* if it is missing, with mode 0600; hide an older file from other users.

    A group that may write keeps its rights: it shares the ledger.

    Raises:
        sqlite3.OperationalError: Another user may have put a file or a link there.
    """
    target = path.resolve()
    files = [target, *(target.with_name(target.name + suffix) for suffix in SIDE_FILES)]
    for one in (path, *files):
        _check_owner(one)
    with suppress(OSError):  # SQLite says itself what is wrong
        # Never opened here: closing the file would end the locks that SQLite holds on it.
        os.mknod(target, stat.S_IFREG | 0o600)
    for one in files:
        with suppress(OSError):
            mode = one.stat().st_mode
            if mode & stat.S_IRWXO:
                one.chmod(mode & 0o660 if mode & stat.S_IWGRP else 0o600)


def _check_owner(path: Path) -> None:
    try:
        owner, parent = path.lstat().st_uid, path.parent.stat()
    except OSError:
        return
    if owner not in {os.geteuid(), 0} and parent.st_mode & stat.S_IWOTH:
        msg = (
            f"user {owner} has put {path} into a directory where all may write: remove it, or "
            "keep the ledger in a directory of its own"
        )
        raise sqlite3.OperationalError(msg)
