"""Fixtures: a ledger in each kind of database, and a server that tests may stop."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine

from resilience.ledger import Ledger
from resilience.ledger.engines import read_url
from resilience.ledger.tables import HEAD, IDENTITY, METADATA
from resilience.ledger.upgrade import version_of
from resilience.testing.mariadb import MariaDbProcess
from resilience.testing.plugin import running_valkey
from resilience.testing.postgres import PostgresProcess
from resilience.testing.valkey import ValkeyProcess


@pytest.fixture(params=["sqlite", "postgresql", "mariadb"])
def ledger_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of an empty database; if the test uses `ledger`, perhaps with empty tables."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/ledger.db"
    name = {"postgresql": "postgres", "mariadb": "mariadb"}[request.param]
    server: PostgresProcess | MariaDbProcess = request.getfixturevalue(name)
    if "ledger" in request.fixturenames and without_rows(server.url):
        return server.url
    return server.emptied()


def without_rows(url: str) -> bool:
    """Delete the rows of an earlier ledger at *url*; return False if it has no current tables.

    To create the tables takes ten times as long: on MariaDB 0.15 s of CPU time.
    """
    engine = create_engine(read_url(url))
    try:
        with engine.begin() as connection:
            if version_of(connection) != HEAD:
                return False
            for table in {*METADATA.tables.values()} - {IDENTITY}:
                connection.execute(table.delete())
            return True
    finally:
        engine.dispose()


@pytest.fixture
def ledger(ledger_url: str) -> Iterator[Ledger]:
    """An empty ledger, which redacts arguments called `password`."""
    ledger = Ledger(ledger_url, timeout_seconds=5.0, redact=("password",))
    ledger.upgrade()
    yield ledger
    ledger.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyProcess]:
    """A server of the module's own: its tests may flush it, stop it and kill it."""
    with running_valkey(tmp_path_factory) as running:
        yield running
