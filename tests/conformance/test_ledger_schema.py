"""How a ledger gets the tables that it needs, and what it says of other ones."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, Engine, create_engine, event, inspect

from resilience.errors import LedgerUnavailableError, SchemaError
from resilience.ledger import Ledger
from resilience.ledger.engines import read_url
from resilience.ledger.tables import HEAD, METADATA, VERSION_TABLE
from resilience.testing.mariadb import MariaDbProcess
from resilience.testing.postgres import PostgresProcess
from tests.conformance.ledger_jobs import by_hand, failure, job, names, take
from tests.ledgers import make_ledger

TABLES = {*METADATA.tables, VERSION_TABLE}


def definitions(connection: Connection) -> dict[str, Any]:
    """Return columns, keys and indexes of all tables."""
    found = inspect(connection)
    return {
        table: {
            "columns": [{**one, "type": str(one["type"])} for one in found.get_columns(table)],
            "key": found.get_pk_constraint(table),
            "indexes": sorted(json.dumps(one, default=str) for one in found.get_indexes(table)),
            "options": found.get_table_options(table),
        }
        for table in found.get_table_names()
    }


def upgrade(url: str) -> None:
    """Do what the command does."""
    ledger = Ledger(url)
    ledger.upgrade()
    ledger.close()


def assert_current(url: str) -> None:
    """Check that the tables at *url* are those that the code uses."""
    engine = create_engine(read_url(url))
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
        assert compare_metadata(context, METADATA) == []
        assert context.get_current_revision() == HEAD
    engine.dispose()


@pytest.fixture(params=["postgres", "mariadb"])
def server_url(request: pytest.FixtureRequest) -> str:
    """The address of an empty database on a server."""
    server: PostgresProcess | MariaDbProcess = request.getfixturevalue(request.param)
    return server.emptied()


@pytest.mark.parametrize("make", [upgrade, lambda url: make_ledger(url, HEAD)], ids=["new", "old"])
def test_ledger_has_the_tables_that_the_code_uses(
    ledger_url: str, make: Callable[[str], None]
) -> None:
    """Column by column and index by index, on every database, also by all migrations in turn."""
    make(ledger_url)
    assert_current(ledger_url)


def test_new_ledger_is_as_one_that_all_migrations_made(ledger_url: str) -> None:
    """Also in what `compare_metadata` leaves out: conditions of indexes, options of tables."""
    engine = create_engine(read_url(ledger_url))
    make_ledger(ledger_url, HEAD)
    with engine.connect() as connection:
        migrated = definitions(connection)
    by_hand(ledger_url, *(f"DROP TABLE {table}" for table in TABLES))

    upgrade(ledger_url)

    with engine.connect() as connection:
        assert definitions(connection) == migrated
    assert migrated.keys() == TABLES
    engine.dispose()


CUTS = [
    *(("0003", number) for number in range(1, 7)),
    *((None, number) for number in (1, 4, 8, 16)),
]
UNDONE = (("0003", 4), (None, 8))
"""The cuts that are enough for PostgreSQL, which undoes what was changed, however much it was."""


@pytest.mark.parametrize(
    ("server_url", "revision", "done"),
    [
        *(("mariadb", *cut) for cut in CUTS),
        *(
            pytest.param("postgres", *cut, marks=() if cut in UNDONE else pytest.mark.long)
            for cut in CUTS
        ),
    ],
    indirect=["server_url"],
)
def test_upgrade_that_was_cut_off_goes_on(server_url: str, revision: str | None, done: int) -> None:
    """MariaDB keeps the changes that were made by then; the next upgrade makes the rest."""
    if revision:
        make_ledger(server_url, revision)
    changes: list[str] = []

    def cut(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if statement.lstrip().startswith(("CREATE", "DROP", "UPDATE")):
            changes.append(statement)
            if len(changes) == done:
                raise ConnectionAbortedError(statement)

    event.listen(Engine, "after_cursor_execute", cut)
    try:
        with pytest.raises(ConnectionAbortedError):
            Ledger(server_url).upgrade()
    finally:
        event.remove(Engine, "after_cursor_execute", cut)

    upgrade(server_url)

    ledger = Ledger(server_url)
    ledger.add([job("a")])
    assert names(take(ledger)) == ["a"]
    ledger.close()
    assert_current(server_url)


@pytest.mark.parametrize(
    ("version", "said"),
    [("0000", "has schema 0000, .* is needed; run: "), ("9999", "newer celery-resilience")],
)
def test_other_schema_is_refused_and_left_alone(ledger_url: str, version: str, said: str) -> None:
    """Neither older nor newer tables are written to; the error says how to mend it."""
    maker = Ledger(ledger_url)
    maker.upgrade()
    maker.add([job("a")])
    maker.close()
    by_hand(ledger_url, f"UPDATE {VERSION_TABLE} SET version_num = {version!r}")  # noqa: S608 - a constant
    ledger = Ledger(ledger_url)

    with pytest.raises(SchemaError, match=said):
        ledger.finish(["a"])
    if version > HEAD:
        with pytest.raises(SchemaError, match=said):
            ledger.upgrade()
    by_hand(ledger_url, f"UPDATE {VERSION_TABLE} SET version_num = {HEAD!r}")  # noqa: S608 - as above
    assert names(take(ledger)) == ["a"]
    ledger.close()


def test_tables_that_are_gone_are_noticed(ledger: Ledger, ledger_url: str) -> None:
    """A running process says what to do, as a new one would."""
    ledger.add([job("a")])
    by_hand(ledger_url, "DROP TABLE resilience_jobs", f"DELETE FROM {VERSION_TABLE}")  # noqa: S608 - a constant

    with pytest.raises(LedgerUnavailableError):
        ledger.park(job("refused"), delay_seconds=0.0, error=failure())
    if ledger_url.startswith("sqlite"):
        ledger.counts()  # it made the tables again, as it does in a new file
        return
    with pytest.raises((SchemaError, LedgerUnavailableError)):
        ledger.counts()
