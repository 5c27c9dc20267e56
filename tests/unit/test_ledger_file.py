"""How a ledger that is a file waits: for the disk, and for another process that writes."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, event

from resilience.errors import LedgerUnavailableError
from resilience.ledger import Ledger

LONG = 600.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the ledger is."""
    return tmp_path / "ledger.db"


@pytest.fixture
def executed() -> Iterator[list[str]]:
    """What SQLite executes, in order."""
    lines: list[str] = []

    def trace(connection: sqlite3.Connection, _: object) -> None:
        connection.set_trace_callback(lines.append)

    event.listen(Engine, "connect", trace)
    yield lines
    event.remove(Engine, "connect", trace)


def synced(executed: list[str]) -> list[tuple[str, str]]:
    """Return the first words of statements that change rows, and how they wait for the disk."""
    mode, found = "", []
    for line in executed:
        word = line.split()[0].upper()
        if "synchronous=" in line:
            mode = line.partition("=")[2]
        elif word in {"INSERT", "UPDATE", "DELETE"}:
            found.append((word, mode))
    return found


def test_only_what_is_done_waits_for_the_disk(path: Path, executed: list[str]) -> None:
    """A crash of the host ends whoever holds a claim; what was done must be known after it."""
    ledger = Ledger(f"sqlite:///{path}")
    ledger.upgrade()
    ledger.claims.release("k", owner="a")
    executed.clear()

    ledger.claims.claim("k", owner="a", lease_seconds=LONG)
    ledger.claims.renew("k", owner="a", lease_seconds=LONG)
    ledger.claims.complete("k", owner="a", result="1", keep_seconds=LONG)
    ledger.claims.release("k", owner="a")

    assert synced(executed) == [
        ("INSERT", "NORMAL"),
        ("UPDATE", "NORMAL"),
        ("UPDATE", "FULL"),
        ("DELETE", "NORMAL"),
    ]
    ledger.close()


def test_claim_that_fails_leaves_no_connection_that_does_not_wait(
    path: Path, executed: list[str]
) -> None:
    """What is kept after a claim that met a lock is on the disk as ever."""
    ledger = Ledger(f"sqlite:///{path}", timeout_seconds=0.01)
    ledger.upgrade()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(LedgerUnavailableError):
        ledger.claims.claim("k", owner="a", lease_seconds=LONG)
    other.close()
    executed.clear()

    ledger.claims.complete("k", owner="a", result="1", keep_seconds=LONG)

    assert synced(executed) == [("UPDATE", "FULL")]
    ledger.close()


def test_wait_for_a_lock_looks_ever_less_often(path: Path, executed: list[str]) -> None:
    """While another process waits for a slow disk, the processor is left to others."""
    ledger = Ledger(f"sqlite:///{path}", timeout_seconds=0.4)
    ledger.upgrade()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")

    with pytest.raises(LedgerUnavailableError):
        ledger.claims.claim("k", owner="a", lease_seconds=LONG)

    other.close()
    looks = [line for line in executed if line.startswith("INSERT INTO resilience_claims")]
    assert 0 < len(looks) < 0.4 / 0.002 + 10  # two milliseconds apart, after the first few
    ledger.close()


def test_look_that_finds_nothing_due_waits_for_nobody(path: Path, executed: list[str]) -> None:
    """Every idle worker looks twice a second; none of them keeps another from writing."""
    ledger = Ledger(f"sqlite:///{path}", timeout_seconds=0.01)
    ledger.upgrade()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    executed.clear()

    assert ledger.take(1, owner="relay", lease_seconds=LONG) == []

    other.close()
    assert not any(line.startswith("BEGIN") for line in executed)
    ledger.close()
