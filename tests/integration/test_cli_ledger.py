"""The commands of the ledger on a database server."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery
from celery.bin.base import CLIContext
from click.testing import CliRunner, Result

from resilience.cli import resilience
from resilience.dependency import Dependency
from resilience.ledger import Job, Ledger
from resilience.settings import Settings
from resilience.tasks.resilience import Resilience
from resilience.testing.postgres import PostgresProcess

PASSWORD = "hunter22"  # noqa: S105 - nobody's


@pytest.fixture
def app(postgres: PostgresProcess) -> Iterator[Celery]:
    """An app whose ledger is an empty database; the server trusts whatever the password is."""
    url = postgres.emptied().replace("@", f":{PASSWORD}@", 1)
    made: Celery[Any] = Celery("shop", set_as_current=False)
    Resilience(made, dependencies=[Dependency("mail")], settings=Settings(ledger_url=url))
    yield made
    made.resilience.ledger.close()  # type: ignore[attr-defined]


def run(app: Celery, *words: str) -> Result:
    """Run `celery resilience` with *words*."""
    context = CLIContext(app=app, no_color=True, workdir=None)
    return CliRunner().invoke(resilience, words, obj=context)


def test_server_is_upgraded_on_demand_and_then_worked_with(app: Celery) -> None:
    """Until then every command says what to run; no output shows the password."""
    ledger: Ledger = app.resilience.ledger  # type: ignore[attr-defined]
    done = [run(app, "ledger", "status"), run(app, "ledger", "upgrade")]
    assert [one.exit_code for one in done] == [1, 0]
    assert "resilience ledger upgrade" in done[0].stderr
    assert "from no schema to schema 0005" in done[1].stdout
    for name in ("one", "two", "three"):
        job = Job(id=name, task="shop.send", dependency="mail", queue="mail", message="{}")
        ledger.bury(job, reason="bug", error=TypeError(name))

    orders = (
        ("dead", "list"),
        ("dead", "replay", "one", "--reason", "x"),
        ("dead", "discard", "two", "--reason", "x", "--yes"),
        ("dead", "purge", "--older-than", "0s", "--yes"),
        ("ledger", "status"),
        ("ledger", "upgrade"),
    )
    done += [run(app, *words) for words in orders]

    assert [one.exit_code for one in done[2:]] == [0] * len(orders)
    rows = json.loads(run(app, "ledger", "status", "--json").stdout)
    assert [(row["state"], row["jobs"]) for row in rows] == [("scheduled", 1)]
    assert not any(PASSWORD in one.output for one in done)


def test_server_that_is_away_is_one_line_without_its_password(
    app: Celery, postgres: PostgresProcess
) -> None:
    """The commands end within seconds, with exit code 1."""
    postgres.stop()
    try:
        done = [run(app, "ledger", "upgrade"), run(app, "dead", "list")]
    finally:
        postgres.start()

    for one in done:
        assert one.exit_code == 1
        assert "did not answer" in one.stderr
        assert PASSWORD not in one.output
