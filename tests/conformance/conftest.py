"""Fixtures: a ledger in each kind of database, and a server that tests may stop."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from resilience.ledger import Ledger
from resilience.testing.mariadb import MariaDbProcess
from resilience.testing.plugin import running_valkey
from resilience.testing.postgres import PostgresProcess
from resilience.testing.valkey import ValkeyProcess
from tests.conformance.ledger_jobs import without_rows


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
