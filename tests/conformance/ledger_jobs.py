"""Jobs for tests of the ledger, and short forms of what tests do with it."""

import json
from typing import Any

import pytest
from sqlalchemy import create_engine, text

from resilience.ledger import Job, Ledger, Letter, Which
from resilience.ledger.engines import read_url
from resilience.ledger.tables import HEAD, IDENTITY, METADATA
from resilience.ledger.upgrade import version_of

MESSAGE = {"args": [7], "kwargs": {"password": "hunter2!"}, "headers": {"deadline": 1.5}}
LEASE_SECONDS = 600.0


def job(name: str = "a", **options: Any) -> Job:  # noqa: ANN401 - a job's own
    """Return a job with the id *name*."""
    defaults = {"task": "shop.mail.send", "dependency": "mail", "queue": "mail.retry"}
    return Job(id=name, message=json.dumps(MESSAGE), **(defaults | options))


def failure(text: str = "connection refused") -> ConnectionError:
    """Return an error with a traceback, which names this function."""
    with pytest.raises(ConnectionError) as caught:
        raise ConnectionError(text)
    return caught.value


def take(ledger: Ledger, limit: int = 1000, *, lease_seconds: float = LEASE_SECONDS) -> list[Job]:
    """Take the jobs that are due, as a relay."""
    return ledger.take(limit, owner="relay", lease_seconds=lease_seconds)


def names(jobs: list[Job]) -> list[str]:
    """Return the ids of *jobs*."""
    return [job.id for job in jobs]


def shown(ledger: Ledger, name: str) -> Letter:
    """Return all that the ledger keeps of the job *name*."""
    letter = ledger.letters.show(name)
    assert letter is not None
    return letter


def buried(ledger: Ledger, *ids: str, **options: Any) -> None:  # noqa: ANN401 - as above
    """Make dead letters with these ids."""
    for name in ids:
        assert ledger.bury(job(name, **options), reason="exhausted", error=failure())


def dead(ledger: Ledger) -> list[str]:
    """Return the ids of all dead letters."""
    return [letter.id for letter in ledger.letters.find(Which(), limit=100_000)]


def states(ledger: Ledger) -> dict[str, int]:
    """Return how many jobs there are in each state."""
    found: dict[str, int] = {}
    for count in ledger.counts():
        found[count.state] = found.get(count.state, 0) + count.jobs
    return found


def by_hand(url: str, *statements: str, **values: object) -> None:
    """Run SQL on the ledger's database, as an operator might by hand."""
    engine = create_engine(read_url(url))
    try:
        with engine.begin() as connection:
            for statement in statements:
                connection.execute(text(statement), values)
    finally:
        engine.dispose()


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
