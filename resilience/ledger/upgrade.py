"""Which schema a database has, and how it gets the one that is needed."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from sqlalchemy import Connection, func, inspect, select, text
from sqlalchemy.schema import CreateIndex, CreateTable

from resilience.errors import SchemaError
from resilience.ledger.tables import HEAD, IDENTITY, METADATA, VERSION, VERSION_TABLE

COMMAND = "celery -A <app> resilience ledger upgrade"
LOCK = 7_305_262_918
"""Any number that no one else takes a lock on."""
LOCK_SECONDS = 60


def version_of(connection: Connection) -> str | None:
    """Return the schema that the database has; None: none yet."""
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    query = text(f"SELECT version_num FROM {VERSION_TABLE}")  # nosec B608 # noqa: S608 - a constant
    found: str | None = connection.scalar(query)
    return found


def check_version(found: str | None, place: str) -> None:
    """Return if the schema *found* at *place* is the one that is needed.

    Raises:
        SchemaError: It is another one.
    """
    if found is None:
        msg = f"{place} has no ledger yet; run: {COMMAND}"
        raise SchemaError(msg)
    if found < HEAD:
        msg = f"the ledger {place} has schema {found}, {HEAD} is needed; run: {COMMAND}"
        raise SchemaError(msg)
    if found > HEAD:
        msg = (
            f"the ledger {place} has schema {found}, made by a newer celery-resilience; this one "
            f"knows schemas up to {HEAD}: install the newer one here, too"
        )
        raise SchemaError(msg)


def upgrade(connection: Connection, place: str) -> None:
    """Bring the schema up to date, in the transaction of *connection*; harmless if it is.

    Raises:
        SchemaError: It is newer than this version of the library.
    """
    if connection.dialect.name == "postgresql":  # in SQLite the transaction has locked out others
        connection.exec_driver_sql("SET LOCAL statement_timeout=0")
        connection.exec_driver_sql("SET LOCAL lock_timeout='60s'")
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({LOCK})")
    with _locked(connection, place):
        found = version_of(connection)
        if found != HEAD:
            if found is None:
                _create(connection)
            elif found < HEAD:
                _migrate(connection)
            check_version(version_of(connection), place)


@contextmanager
def _locked(connection: Connection, place: str) -> Iterator[None]:
    """Keep others out on MariaDB, where each change of a table is a transaction of its own."""
    if connection.dialect.name not in {"mysql", "mariadb"}:
        yield
        return
    connection.exec_driver_sql(f"SET SESSION lock_wait_timeout={LOCK_SECONDS}")
    if not connection.scalar(select(func.get_lock(str(LOCK), LOCK_SECONDS))):
        msg = f"another process has been upgrading {place} for {LOCK_SECONDS} s; wait for its end"
        raise SchemaError(msg)
    try:
        yield
    finally:
        connection.execute(select(func.release_lock(str(LOCK))))


def _create(connection: Connection) -> None:
    """Make the newest schema in one go, without Alembic, whose import takes 0.1 s.

    The version comes last. On MariaDB, where each statement is a transaction of its own, the next
    upgrade after an interruption makes what is missing.
    """
    for table in METADATA.sorted_tables:
        connection.execute(CreateTable(table, if_not_exists=True))
        # In an order of their own, as SQLite prefers the last of those that serve a query.
        for index in sorted(table.indexes, key=lambda one: str(one.name)):
            connection.execute(CreateIndex(index, if_not_exists=True))
    if connection.scalar(select(IDENTITY.c.number)) is None:
        connection.execute(IDENTITY.insert().values(number=1, id=uuid4().hex))
    VERSION.create(connection, checkfirst=True)
    connection.execute(VERSION.insert().values(version_num=HEAD))


def _migrate(connection: Connection) -> None:
    # Here, as it takes long to import and a worker does without.
    from alembic import command  # noqa: PLC0415
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    home = str(Path(__file__).parent / "migrations")
    config.set_main_option("script_location", home.replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
