"""`celery -A app resilience ledger`: what must not get lost, and the database that keeps it."""

import json

import click

from resilience.cli.rows import console
from resilience.cli.words import briefly, confirm, plain
from resilience.clock import SystemClock
from resilience.ledger import COUNT_LIMIT, Count, Ledger
from resilience.ledger.database import Database
from resilience.ledger.engines import read_url
from resilience.ledger.upgrade import version_of
from resilience.monitor.rows import count_row
from resilience.tasks.ledger_check import LedgerCheck
from resilience.tasks.resilience import Resilience

SECONDS = 1.0
"""Longest wait for the database."""


def ledger_of(context: click.Context, *, only: bool = True) -> Ledger:
    """Return the ledger of the app; its connections are closed when the command ends.

    Args:
        context: Of the command.
        only: Whether it must be the ledger that other processes of the app have.

    Raises:
        ConfigurationError: The app was never adopted, its setting is none of a ledger, or other
            processes have another one.
    """
    adopted = Resilience.of(context.obj.app)
    found = adopted.ledger
    context.call_on_close(found.close)
    if only:
        LedgerCheck.of(adopted).look()
    return found


@click.group()
def ledger() -> None:
    """See what the ledger holds, and bring its database up to date."""


@ledger.command()
@click.pass_context
def upgrade(context: click.Context) -> None:
    """Bring the schema of the database up to date; harmless if it is."""
    found = ledger_of(context, only=False)
    url = Resilience.of(context.obj.app).settings.ledger_url
    before = _schema(url)
    found.upgrade()
    after = _schema(url)
    place = read_url(url).render_as_string()
    if before == after:
        click.echo(f"{place} has schema {after} already.")
    else:
        click.echo(f"{place}: from {before or 'no schema'} to schema {after}.")


@ledger.command()
@click.option("--yes", is_flag=True, help="Skip the question; required without a terminal.")
@click.pass_context
def accept(context: click.Context, *, yes: bool) -> None:
    """Make the ledger of this command the app's ledger.

    Use it after a ledger was replaced or moved on purpose. Processes that still have the former
    one are refused when they start, and announce `SecondLedgerFound` while they run.
    """
    found = ledger_of(context, only=False)
    place = found.identity().place
    if not yes:
        confirm(f"Shall all processes of the app keep their jobs in {place}?")
    LedgerCheck.of(Resilience.of(context.obj.app)).accept()
    click.echo(f"The ledger is {place}.")


@ledger.command()
@click.option("--exact", is_flag=True, help="Count all; takes longer the more there are.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list.")
@click.pass_context
def status(context: click.Context, *, exact: bool, as_json: bool) -> None:
    """Count the jobs of every dependency by state.

    A number with a plus is where counting ended: there are more.
    """
    limit = None if exact else COUNT_LIMIT
    found = ledger_of(context).counts(limit=limit)
    counts = sorted(found, key=lambda one: (one.dependency, one.state))
    if as_json:
        click.echo(json.dumps([count_row(one) for one in counts], indent=2))
        return
    place = read_url(Resilience.of(context.obj.app).settings.ledger_url).render_as_string()
    click.echo(f"{place}{'' if counts else ' holds no jobs.'}")
    if not counts:
        return
    from rich.table import Table  # noqa: PLC0415 - an extra
    from rich.text import Text  # noqa: PLC0415 - an extra

    table = Table("dependency", "state", "jobs", "oldest")
    for one in counts:
        table.add_row(
            Text(plain(one.dependency)), str(one.state), Text(one.amount, "bold"), _oldest(one)
        )
    console().print(table)


def _oldest(one: Count) -> str:
    overdue = one.overdue_seconds
    if overdue is None:
        return ""
    return f"overdue {briefly(overdue)}" if overdue > 0 else f"due in {briefly(-overdue)}"


def _schema(url: str) -> str | None:
    """Return the schema that the database at *url* has; None: none yet.

    Raises:
        LedgerUnavailableError: It does not answer.
    """
    database = Database(url, timeout_seconds=SECONDS, clock=SystemClock())
    try:
        # Its transactions begin with a check of the schema, which is what may fail here.
        with database.translated(), database._engine().connect() as connection:  # noqa: SLF001
            return version_of(connection)
    finally:
        database.close()
