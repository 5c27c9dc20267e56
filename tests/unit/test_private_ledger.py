"""A ledger that is a file: who can read it, and who can have made it."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import make_url

from resilience.errors import LedgerUnavailableError
from resilience.ledger import Ledger
from resilience.ledger.private_file import path_of
from tests.planting import as_nobody, needs_root, shared_directory

SIDES = ("", "-wal", "-shm")


@pytest.fixture
def shared() -> Iterator[Path]:
    """A directory like /tmp, and the usual mask for new files."""
    before = os.umask(0o022)
    with shared_directory() as directory:
        yield directory
    os.umask(before)


def modes(path: Path) -> list[int]:
    """Use a ledger at *path*; return the modes of its files, meanwhile."""
    ledger = Ledger(f"sqlite:///{path}")
    ledger.claims.claim("k", owner="a", lease_seconds=600.0)
    found = [stat.S_IMODE(path.with_name(path.name + side).stat().st_mode) for side in SIDES]
    ledger.close()
    return found


def test_nobody_else_reads_a_new_ledger(shared: Path) -> None:
    """It holds the arguments of all jobs, and so do its log and its index."""
    assert modes(shared / "ledger.sqlite3") == [0o600, 0o600, 0o600]


@pytest.mark.parametrize(
    "url", ["sqlite:///file:{}?uri=true", "sqlite+pysqlite:///{}?timeout=5", "sqlite:///{}"]
)
def test_every_way_to_name_a_file_keeps_it_private(shared: Path, url: str) -> None:
    """A URI of SQLite's names a file as well."""
    path = shared / "ledger.sqlite3"
    ledger = Ledger(url.format(path))
    ledger.upgrade()
    ledger.close()

    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_ledger_in_memory_has_no_file() -> None:
    """Nothing is made for it."""
    for text in ("sqlite:///file::memory:?uri=true", "sqlite:///file:x?mode=memory&uri=true"):
        assert path_of(make_url(text)) is None


@pytest.mark.parametrize(
    ("before", "after"), [(0o644, 0o600), (0o666, 0o660), (0o664, 0o660), (0o660, 0o660)]
)
def test_ledger_of_an_older_version_becomes_private(shared: Path, before: int, after: int) -> None:
    """Also while a program that was started earlier uses it; a group that writes may go on."""
    path = shared / "ledger.sqlite3"
    modes(path)
    held = Ledger(f"sqlite:///{path}")
    held.claims.claim("held", owner="a", lease_seconds=600.0)
    for side in SIDES:
        path.with_name(path.name + side).chmod(before)

    assert modes(path) == [after] * 3

    held.claims.complete("held", owner="a", result="1", keep_seconds=600.0)
    held.close()


def test_link_of_ones_own_is_followed(shared: Path, tmp_path: Path) -> None:
    """A ledger may lie on another disk."""
    (shared / "ledger.sqlite3").symlink_to(tmp_path / "real.sqlite3")
    ledger = Ledger(f"sqlite:///{shared}/ledger.sqlite3")
    ledger.upgrade()
    ledger.close()

    assert stat.S_IMODE((tmp_path / "real.sqlite3").stat().st_mode) == 0o600


@needs_root
@pytest.mark.parametrize("side", ["", "-wal", "-journal"])
@pytest.mark.parametrize("kind", ["link", "file"])
def test_what_another_user_planted_is_never_written(
    shared: Path, tmp_path: Path, kind: str, side: str
) -> None:
    """The error names the file, its owner and the mend; nothing was written anywhere."""
    planted = shared / f"ledger.sqlite3{side}"
    if kind == "link":
        as_nobody("ln", "-s", tmp_path / "victim", planted)
    else:
        as_nobody("touch", planted)
    ledger = Ledger(f"sqlite:///{shared}/ledger.sqlite3")

    with pytest.raises(LedgerUnavailableError, match=f"user 65534 has put {planted}.*remove it"):
        ledger.claims.claim("k", owner="a", lease_seconds=600.0)

    assert not (tmp_path / "victim").exists()
    assert kind == "link" or planted.stat().st_size == 0
    ledger.close()
