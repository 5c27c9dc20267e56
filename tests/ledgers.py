"""Ledgers with the schema of an older version of the library."""

from collections.abc import Iterator
from contextlib import contextmanager

from alembic import command
from alembic.config import Config

import resilience.ledger.migrations
from resilience.clock import SystemClock
from resilience.ledger.database import Database
from resilience.ledger.upgrade import version_of


@contextmanager
def _configured(url: str) -> Iterator[Config]:
    database = Database(url, timeout_seconds=5.0, clock=SystemClock())
    with database.translated(), database._engine().begin() as connection:  # noqa: SLF001 - works with any schema
        config = Config()
        config.set_main_option("script_location", str(*resilience.ledger.migrations.__path__))
        config.set_main_option("path_separator", "os")
        config.attributes["connection"] = connection
        yield config
    database.close()


def make_ledger(url: str, revision: str) -> None:
    """Create the schema of *revision* in the empty database at *url*."""
    with _configured(url) as config:
        command.upgrade(config, revision)


def revision_of(url: str) -> str | None:
    """Return the revision of the schema at *url*; None: it has none."""
    with _configured(url) as config:
        return version_of(config.attributes["connection"])
