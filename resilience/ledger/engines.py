"""Engines whose waits have an end."""

import sqlite3
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.pool import ConnectionPoolEntry

from resilience.errors import ConfigurationError

POOL = 4
"""Connections per process; a thread more waits its turn."""
READS = {"resilience_reads": True}
"""Execution option of a connection that only reads."""
CHECKPOINT_PAGES = 4000


def read_url(url: str) -> URL:
    """Return *url* parsed, with the driver that the library is tested with.

    Raises:
        ConfigurationError: It is none of a ledger.
    """
    try:
        parsed = make_url(url)
    except ArgumentError:
        # The text is not repeated: it may hold a password where a parser would not look for one.
        msg = "the ledger's URL cannot be read; write sqlite:////path or postgresql://host/name"
        raise ConfigurationError(msg) from None
    backend = parsed.get_backend_name()
    place = parsed.render_as_string(hide_password=True)
    if backend not in {"sqlite", "postgresql", "mysql", "mariadb"}:
        msg = f"{place} is no ledger: use sqlite, postgresql or mariadb"
        raise ConfigurationError(msg)
    if backend == "sqlite" and parsed.database in {None, "", ":memory:"}:
        msg = f"{place} forgets all when the process ends: name a file, as in sqlite:////path"
        raise ConfigurationError(msg)
    drivers = {"postgresql": "psycopg", "mysql": "pymysql", "mariadb": "pymysql"}
    if parsed.drivername == backend in drivers:
        parsed = parsed.set(drivername=f"{backend}+{drivers[backend]}")
    return parsed


def make_engine(url: URL, *, timeout_seconds: float) -> Engine:
    """Return an engine for this process; nothing is connected yet.

    Raises:
        ConfigurationError: The driver is not installed.
    """
    make = {"sqlite": _sqlite, "postgresql": _postgresql}.get(url.get_backend_name(), _mariadb)
    try:
        return make(url, timeout_seconds)
    except ModuleNotFoundError as error:
        msg = f"{url.drivername} needs {error.name}: pip install 'celery-resilience[postgres]'"
        raise ConfigurationError(msg) from error


def _pooled(url: URL, seconds: float, **options: Any) -> Engine:  # noqa: ANN401 - SQLAlchemy's
    return create_engine(
        url, pool_size=POOL, max_overflow=0, pool_timeout=seconds, pool_use_lifo=True, **options
    )


def _sqlite(url: URL, seconds: float) -> Engine:
    engine = _pooled(url, seconds, connect_args={"timeout": seconds})

    @event.listens_for(engine, "connect")
    def prepare(connection: sqlite3.Connection, _: ConnectionPoolEntry) -> None:
        connection.isolation_level = None  # transactions begin below, not where the driver guesses
        # A text that is not UTF-8 must not keep the other rows from being read.
        connection.text_factory = lambda text: text.decode(errors="surrogateescape")
        if connection.execute("PRAGMA journal_mode").fetchone() != ("wal",):
            connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute(f"PRAGMA wal_autocheckpoint={CHECKPOINT_PAGES}")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # Who reads first and writes later is refused if somebody wrote in between.
        reads = connection.get_execution_options().keys() >= READS.keys()
        connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")

    return engine


def _postgresql(url: URL, seconds: float) -> Engine:
    # Here, so that a ledger in SQLite runs without the driver.
    from resilience.ledger.postgres import connect_patiently, limit_waits  # noqa: PLC0415

    # Nobody uses a connection that was lost since; asking costs one round trip.
    engine = _pooled(url, seconds, pool_pre_ping=True, isolation_level="READ COMMITTED")
    event.listen(engine, "do_connect", connect_patiently(seconds))
    event.listen(engine, "connect", limit_waits(seconds))
    return engine


def _mariadb(url: URL, seconds: float) -> Engine:
    whole = max(1, round(seconds))
    waits = {"connect_timeout": whole, "read_timeout": whole + 1, "write_timeout": whole + 1}
    engine = _pooled(
        url, seconds, pool_pre_ping=True, isolation_level="READ COMMITTED", connect_args=waits
    )

    @event.listens_for(engine, "connect")
    def limit(connection: Any, _: ConnectionPoolEntry) -> None:  # noqa: ANN401 - the driver's
        with connection.cursor() as cursor:
            cursor.execute(
                f"SET SESSION innodb_lock_wait_timeout={whole}, max_statement_time={seconds:g}"
            )

    return engine
