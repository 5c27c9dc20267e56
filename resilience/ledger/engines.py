"""Engines whose waits have an end."""

import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DisconnectionError, NoSuchModuleError
from sqlalchemy.pool import ConnectionPoolEntry

from resilience.clock import Clock
from resilience.errors import ConfigurationError
from resilience.ledger.private_file import keep_private, path_of
from resilience.text import hide_in_text

POOL = 4
"""Connections per process; a thread more waits its turn."""
STEPS = {"resilience_steps": True}
"""Execution option of a connection on which every statement is a transaction."""
LEDGER = {"resilience_ledger": True}
"""Execution option that tells the ledger's engines from those of the app."""
CHECKPOINT_PAGES = 4000
MARGIN_SECONDS = 0.5
UPGRADE_SECONDS = 86400.0
LOCK_PAUSE_SECONDS = 0.0002
LOCK_PAUSE_SECONDS_MAX = 0.002
"""A disk may take long to sync, and each look costs the processor as much as a statement."""
PRIMARY_CODE = 0xFF
"""What of SQLite's codes says what is wrong; the rest says how it was found."""
FRESH_SECONDS = 1.0
"""A connection that answered so short a time ago is not asked whether it still does."""

T = TypeVar("T")


def read_url(url: str) -> URL:
    """Return *url* parsed, with the driver that the library is tested with.

    Raises:
        ConfigurationError: It is none of a ledger, or its driver is not installed.
    """
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        # The text is not repeated: it may hold a password where a parser would not look for one.
        msg = "the ledger's URL cannot be read; write sqlite:////path or postgresql://host/name"
        raise ConfigurationError(msg) from None
    backend = parsed.get_backend_name()
    place = place_of(parsed)
    if backend not in {"sqlite", "postgresql", "mysql", "mariadb"}:
        msg = f"{place} is no ledger: use sqlite, postgresql or mariadb"
        raise ConfigurationError(msg)
    if backend == "sqlite" and parsed.database in {None, "", ":memory:"}:
        msg = f"{place} forgets all when the process ends: name a file, as in sqlite:////path"
        raise ConfigurationError(msg)
    drivers = {"postgresql": "psycopg", "mysql": "pymysql", "mariadb": "pymysql"}
    if is_relative(url):
        # Now: a process that changes its directory later still has one ledger.
        parsed = parsed.set(database=str(Path(str(parsed.database)).absolute()))
    if parsed.drivername == backend in drivers:
        parsed = parsed.set(drivername=f"{backend}+{drivers[backend]}")
    try:
        driver_of(parsed)
    except (ModuleNotFoundError, NoSuchModuleError) as error:
        extra = "postgres" if backend == "postgresql" else "mariadb"
        mend = f"pip install 'celery-resilience[{extra}]'"
        msg = f"{place} needs a driver that is not installed ({error}); {mend}"
        raise ConfigurationError(msg) from error
    return parsed


def place_of(url: URL) -> str:
    """Return *url* as anybody may see it."""
    return hide_in_text(url.render_as_string(hide_password=True))


def is_relative(url: str) -> bool:
    """Tell whether *url* names a file that depends on where the process was started."""
    parsed = make_url(url)
    named = str(parsed.database)
    is_file = parsed.get_backend_name() == "sqlite" and not named.startswith(("file:", ":"))
    return is_file and not Path(named).is_absolute()


def driver_of(url: URL) -> Any:  # noqa: ANN401 - a module of DBAPI
    """Return the driver of *url*."""
    return url.get_dialect().import_dbapi()


def make_engine(url: URL, *, timeout_seconds: float, clock: Clock) -> Engine:
    """Return an engine for this process; nothing is connected yet."""
    make = {"sqlite": _sqlite, "postgresql": _postgresql}.get(url.get_backend_name(), _mariadb)
    return make(url, timeout_seconds, clock)


def make_patient_engine(url: URL, *, timeout_seconds: float, clock: Clock) -> Engine:
    """Do the same for an upgrade, whose statements take as long as there are many rows."""
    if url.get_backend_name() in {"sqlite", "postgresql"}:
        return make_engine(url, timeout_seconds=timeout_seconds, clock=clock)
    return _mariadb(url, timeout_seconds, clock, statement_seconds=UPGRADE_SECONDS)


def _pooled(url: URL, seconds: float, **options: Any) -> Engine:  # noqa: ANN401 - SQLAlchemy's
    return create_engine(
        url,
        pool_size=POOL,
        max_overflow=0,
        pool_timeout=seconds,
        pool_use_lifo=True,
        pool_reset_on_return=None,  # whoever begins a transaction ends it
        isolation_level="AUTOCOMMIT",  # transactions begin where it is said, not at any statement
        execution_options=LEDGER,
        **options,
    )


def _sqlite(url: URL, seconds: float, clock: Clock) -> Engine:
    engine = _pooled(url, seconds, connect_args={"timeout": seconds})
    if path := path_of(url):
        event.listen(engine, "do_connect", lambda *_: keep_private(path))

    @event.listens_for(engine, "connect")
    def prepare(connection: sqlite3.Connection, _: ConnectionPoolEntry) -> None:
        # A text that is not UTF-8 must not keep the other rows from being read.
        connection.text_factory = lambda text: text.decode(errors="surrogateescape")
        # Processes that make the file at once get in each other's way, and SQLite waits for none.
        deadline = clock.monotonic() + seconds
        when_unlocked(lambda: _keep_wal(connection), clock, deadline=deadline)
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute(f"PRAGMA wal_autocheckpoint={CHECKPOINT_PAGES}")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        driver: sqlite3.Connection = connection.connection.driver_connection  # type: ignore[assignment]
        if _steps(connection):
            driver.execute(f"PRAGMA busy_timeout={round(seconds * 1000)}")
        else:
            driver.execute("PRAGMA busy_timeout=0")
            # Now: who reads first is refused if somebody writes before it does.
            deadline = clock.monotonic() + seconds
            when_unlocked(lambda: driver.execute("BEGIN IMMEDIATE"), clock, deadline=deadline)

    return engine


def _keep_wal(connection: sqlite3.Connection) -> None:
    if connection.execute("PRAGMA journal_mode").fetchone() != ("wal",):
        connection.execute("PRAGMA journal_mode=WAL")


def when_unlocked(step: Callable[[], T], clock: Clock, *, deadline: float) -> T:
    """Return what *step* does, once no other process writes to a SQLite database.

    A commit takes less than a millisecond, but SQLite's own wait soon sleeps for a hundred.
    """
    seconds = LOCK_PAUSE_SECONDS
    while True:
        try:
            return step()
        except sqlite3.OperationalError as error:
            busy = error.sqlite_errorcode & PRIMARY_CODE == sqlite3.SQLITE_BUSY
            if not busy or clock.monotonic() > deadline:
                raise
            threading.Event().wait(seconds)
            seconds = min(1.5 * seconds, LOCK_PAUSE_SECONDS_MAX)


def _postgresql(url: URL, seconds: float, clock: Clock) -> Engine:
    # Here, so that a ledger in SQLite runs without the driver.
    from resilience.ledger.postgres import connect_patiently, limit_waits  # noqa: PLC0415

    engine = _pooled(url, seconds)
    _on_server(engine, clock)
    event.listen(engine, "do_connect", connect_patiently(seconds))
    event.listen(engine, "connect", limit_waits(seconds))
    return engine


def _mariadb(
    url: URL, seconds: float, clock: Clock, *, statement_seconds: float | None = None
) -> Engine:
    whole, most = max(1, round(seconds)), statement_seconds or seconds
    # Longer than the server lets a statement run, so that it says itself what takes so long.
    longest = most + MARGIN_SECONDS
    waits = {"connect_timeout": seconds, "read_timeout": longest, "write_timeout": longest}
    engine = _pooled(url, seconds, connect_args=waits)
    _on_server(engine, clock)

    @event.listens_for(engine, "connect")
    def limit(connection: Any, _: ConnectionPoolEntry) -> None:  # noqa: ANN401 - the driver's
        with connection.cursor() as cursor:
            cursor.execute(
                f"SET SESSION innodb_lock_wait_timeout={whole}, max_statement_time={most:g}"
            )
            # By default what is taken locks the gaps between rows, too, and who adds waits.
            cursor.execute("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")

    return engine


def _steps(connection: Connection) -> bool:
    return connection.get_execution_options().keys() >= STEPS.keys()


def _on_server(engine: Engine, clock: Clock) -> None:
    """Begin transactions only where one is wanted, and never on a connection that was lost."""

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        if not _steps(connection):
            connection.exec_driver_sql("BEGIN")

    @event.listens_for(engine, "checkin")
    def note(_: object, record: ConnectionPoolEntry) -> None:
        record.info["used"] = clock.monotonic()

    @event.listens_for(engine, "checkout")
    def ask(connection: Any, record: ConnectionPoolEntry, _: object) -> None:  # noqa: ANN401 - as above
        if clock.monotonic() - record.info.get("used", clock.monotonic()) < FRESH_SECONDS:
            return
        try:
            alive = engine.dialect.do_ping(connection)
        except engine.dialect.loaded_dbapi.Error as error:
            raise DisconnectionError from error
        if not alive:
            raise DisconnectionError
