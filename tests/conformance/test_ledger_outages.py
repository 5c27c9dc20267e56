"""What a ledger does when its database is away, locked, full, or not the one it needs."""

import signal
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from time import perf_counter

import psutil
import pytest
from sqlalchemy import create_engine, event
from sqlalchemy.pool import ConnectionPoolEntry

from resilience.errors import ConfigurationError, LedgerUnavailableError, SchemaError
from resilience.ledger import Ledger, Which
from resilience.ledger.engines import read_url
from resilience.testing.mariadb import MariaDbProcess
from resilience.testing.postgres import PostgresProcess
from resilience.testing.process import suspend
from tests.conformance import ledger_child as child
from tests.conformance.ledger_jobs import (
    buried,
    failure,
    job,
    names,
    states,
    take,
    without_rows,
)
from tests.ledgers import make_ledger
from tests.unit.hand_clock import HandClock

Server = PostgresProcess | MariaDbProcess

SECONDS = 0.5
CONNECT_SECONDS = 2.0
MARGIN_SECONDS = 1.5


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a ledger in SQLite may be."""
    return tmp_path / "ledger.db"


@pytest.fixture(params=["postgres", "mariadb"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server that the test may kill."""
    server: Server = request.getfixturevalue(request.param)
    yield server
    if not server.running:
        server.start()


@pytest.fixture
def served(server: Server) -> Iterator[Ledger]:
    """A ledger on that server."""
    url = server.url if without_rows(server.url) else server.emptied()
    ledger = Ledger(url, timeout_seconds=SECONDS)
    ledger.upgrade()
    yield ledger
    ledger.close()


def refused(ledger: Ledger) -> str:
    """Return what is said when a job cannot be kept."""
    with pytest.raises(LedgerUnavailableError) as caught:
        ledger.park(job("refused"), delay_seconds=0.0, error=failure())
    return str(caught.value)


def test_server_that_was_killed_and_is_back_has_all_that_was_kept(
    served: Ledger, server: Server
) -> None:
    """Away is a clear error at once; back, the same ledger goes on with every job."""
    served.add([job("a")])
    server.kill()

    assert "127.0.0.1" in refused(served)
    server.start()

    served.park(job("b"), delay_seconds=0.0, error=failure())
    assert names(take(served)) == ["a", "b"]


def test_connection_that_was_cut_while_idle_is_not_used(served: Ledger, server: Server) -> None:
    """A server that was restarted between two jobs costs the second nothing."""
    clock = HandClock()
    ledger = Ledger(_url(served), clock=clock)
    ledger.add([job("a")])
    server.stop()
    server.start()
    clock.advance(2.0)  # what was used within a second is not asked whether it lives

    ledger.add([job("b")])
    assert names(take(ledger)) == ["a", "b"]
    ledger.close()


def test_server_that_hangs_is_waited_for_in_bounds(served: Ledger, server: Server) -> None:
    """A server that takes connections and never answers is an error soon, and then works again."""
    served.add([job("a")])
    processes = [psutil.Process(server.pid), *psutil.Process(server.pid).children()]
    for process in processes:
        suspend(process.pid)
    try:
        for most in (SECONDS, CONNECT_SECONDS):  # at once, and once the connection is given up
            before = perf_counter()
            refused(served)
            assert perf_counter() - before < most + MARGIN_SECONDS
    finally:
        for process in processes:
            process.send_signal(signal.SIGCONT)

    # The server may still do what it was asked when it wakes up.
    assert {"a"} <= {*names(take(served))} <= {"a", "refused"}


def test_locked_row_is_waited_for_in_bounds(served: Ledger, server: Server) -> None:
    """Somebody's open transaction is an error that says so, and no taker waits for it."""
    del server
    served.add([job("a"), job("b")])
    engine = create_engine(read_url(_url(served)))
    with engine.begin() as connection:
        connection.exec_driver_sql("SELECT * FROM resilience_jobs WHERE id = 'a' FOR UPDATE")

        assert names(take(served)) == ["b"]
        with pytest.raises(LedgerUnavailableError, match="find and end it"):
            served.finish(["a"])
    engine.dispose()

    assert served.finish(["a"]) == 1


def test_locked_letter_is_waited_for_in_bounds(served: Ledger) -> None:
    """A replay or discard leaves out no letter whose lock a dead process has not lost yet."""
    buried(served, "a", "b")
    begun = {"actor": "ann", "reason": "mail is back", "limit": 9}
    engine = create_engine(read_url(_url(served)))
    with engine.begin() as connection:
        connection.exec_driver_sql("SELECT * FROM resilience_jobs WHERE id = 'a' FOR UPDATE")

        with pytest.raises(LedgerUnavailableError, match="find and end it"):
            served.letters.replay(Which(), **begun, new_id=lambda: "new")
        with pytest.raises(LedgerUnavailableError, match="find and end it"):
            served.letters.discard(Which(), **begun)
    engine.dispose()

    assert served.letters.discard(Which(), **begun) == ["a", "b"]


def _url(ledger: Ledger) -> str:
    url = ledger._database._engine().url  # noqa: SLF001 - errors hide the user
    return url.render_as_string(hide_password=False)


def test_locked_file_is_waited_for_in_bounds(path: Path) -> None:
    """Somebody's open transaction is an error that says so; reading goes on, and so does all."""
    ledger = Ledger(f"sqlite:///{path}", timeout_seconds=SECONDS)
    ledger.add([job("a")])
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    before = perf_counter()

    assert "keeps it locked" in refused(ledger)
    assert SECONDS <= perf_counter() - before < SECONDS + MARGIN_SECONDS
    assert states(ledger) == {"outbox": 1}
    other.execute("ROLLBACK")
    other.close()
    assert names(take(ledger)) == ["a"]
    ledger.close()


def test_full_disk_keeps_what_was_kept(path: Path) -> None:
    """What does not fit is refused with an error, wholly; once there is room it fits."""
    ledger = Ledger(f"sqlite:///{path}", timeout_seconds=SECONDS)
    ledger.add([job("a")])
    engine = ledger._database._engine()  # noqa: SLF001 - only its own connections can be limited
    pages = [100]

    @event.listens_for(engine, "checkout")
    def limit(connection: sqlite3.Connection, _: ConnectionPoolEntry, __: object) -> None:
        connection.execute(f"PRAGMA max_page_count={pages[0]}")

    huge = job("huge", queue="q" * 1_000_000)
    with pytest.raises(LedgerUnavailableError, match="full; make room"):
        ledger.add([job("b"), huge])

    assert states(ledger) == {"outbox": 1}
    assert ledger.park(job("small"), delay_seconds=0.0, error=failure())
    pages[0] = 100_000
    ledger.add([job("b"), huge])
    assert names(take(ledger)) == ["a", "small", "b", "huge"]
    ledger.close()


def test_sqlite_is_made_on_first_use_once_by_many(path: Path) -> None:
    """Workers that start together find one ledger, and what each of them kept."""
    child.together(child.first_use, f"sqlite:///{path}", 6)

    ledger = Ledger(f"sqlite:///{path}")
    assert sorted(names(take(ledger))) == [f"p{number}" for number in range(6)]
    ledger.close()
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()


def test_missing_migration_is_an_error_that_says_what_to_run(server: Server) -> None:
    """A server's schema is made when somebody says so, and by then the same ledger works."""
    ledger = Ledger(server.emptied())
    for _ in range(2):
        with pytest.raises(SchemaError, match="run: celery -A <app> resilience ledger upgrade"):
            ledger.add([job("a")])

    ledger.upgrade()
    ledger.upgrade()
    ledger.add([job("a")])
    assert names(take(ledger)) == ["a"]
    ledger.close()


def test_upgrade_on_mariadb_takes_as_long_as_it_needs(mariadb: MariaDbProcess) -> None:
    """What a statement may take at other times does not limit one that is made for all rows."""
    url = mariadb.emptied()
    make_ledger(url, "0004")
    others = create_engine(read_url(url))
    ledger = Ledger(url, timeout_seconds=SECONDS)
    with others.connect() as reader, ThreadPoolExecutor() as beside:
        reader.exec_driver_sql("BEGIN")
        reader.exec_driver_sql("SELECT * FROM resilience_jobs")  # which no index is dropped under
        upgraded = beside.submit(ledger.upgrade)
        with suppress(TimeoutError):
            upgraded.result(CONNECT_SECONDS)
        assert not upgraded.done()
        reader.exec_driver_sql("COMMIT")
        upgraded.result()
    others.dispose()

    ledger.add([job("a")])
    assert names(take(ledger)) == ["a"]
    ledger.close()


def test_hosts_clock_changes_nothing_on_a_server(served: Ledger, server: Server) -> None:
    """Hosts whose clocks are decades apart agree on what is due."""
    del server
    ahead = Ledger(_url(served), clock=HandClock())
    ahead.add([job("later")], delay_seconds=600.0)
    ahead.park(job("now"), delay_seconds=0.0, error=failure())

    assert names(take(ahead)) == ["now"]
    assert names(take(served)) == []
    ahead.close()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("sqlite://", "forgets all"),
        ("sqlite:///:memory:", "forgets all"),
        ("redis://host/0", "redis://host/0 is no ledger"),
        ("oracle://user:secret@host/name", r"oracle://\*\*\*@host/name is no ledger"),
        ("ledger.db", "cannot be read"),
        ("mysql+nodriver://host/name", "nodriver"),
    ],
)
def test_url_that_is_no_ledgers_is_refused_where_it_is_written(url: str, said: str) -> None:
    """The error names the place and the mend, and no password."""
    with pytest.raises(ConfigurationError, match=said) as caught:
        Ledger(url).counts()

    assert "secret" not in str(caught.value)
