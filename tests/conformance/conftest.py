"""A ledger in each kind of database."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine

from resilience.ledger import Ledger
from resilience.ledger.engines import read_url
from resilience.ledger.tables import HEAD, IDENTITY, METADATA
from resilience.ledger.upgrade import version_of
from resilience.testing.mariadb import MariaDbProcess
from resilience.testing.postgres import PostgresProcess


@pytest.fixture(params=["sqlite", "postgresql", "mariadb"])
def ledger_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of an empty database; the tables may be there if the test has a `ledger`."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/ledger.db"
    name = {"postgresql": "postgres", "mariadb": "mariadb"}[request.param]
    server: PostgresProcess | MariaDbProcess = request.getfixturevalue(name)
    if "ledger" in request.fixturenames and without_rows(server.url):
        return server.url
    return server.emptied()


def without_rows(url: str) -> bool:
    """Delete what an earlier ledger has kept at *url*; return whether its tables are there.

    To make them takes ten times as long: on MariaDB 0.15 s of CPU time.
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
    """A ledger with nothing in it, which hides passwords."""
    ledger = Ledger(ledger_url, timeout_seconds=5.0, redact=("password",))
    ledger.upgrade()
    yield ledger
    ledger.close()
