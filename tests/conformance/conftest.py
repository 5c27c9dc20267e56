"""A ledger in each kind of database."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from resilience.ledger import Ledger


@pytest.fixture(params=["sqlite", "postgresql", "mariadb"])
def ledger_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of an empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/ledger.db"
    server = {"postgresql": "postgres", "mariadb": "mariadb"}[request.param]
    url: str = request.getfixturevalue(server).emptied()
    return url


@pytest.fixture
def ledger(ledger_url: str) -> Iterator[Ledger]:
    """A ledger with nothing in it, which hides passwords."""
    ledger = Ledger(ledger_url, timeout_seconds=5.0, redact=("password",))
    ledger.upgrade()
    yield ledger
    ledger.close()
