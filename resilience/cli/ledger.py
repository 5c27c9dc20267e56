"""`celery -A app resilience ledger`: what must not get lost, and the database that keeps it."""

import click

from resilience.cli.rows import JSON, print_rows
from resilience.cli.words import briefly, confirm, say
from resilience.clock import SystemClock
from resilience.ledger import COUNT_LIMIT, Count, Ledger
from resilience.ledger.database import Database
from resilience.ledger.engines import place_of, read_url
from resilience.ledger.upgrade import version_of
from resilience.monitor.rows import count_row
from resilience.tasks.ledger_check import LedgerCheck
from resilience.tasks.resilience import Resilience

COLUMNS = ("dependency", "state", "jobs", "oldest")
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
    place = place_of(read_url(url))
    if before == after:
        say(f"{place} has schema {after} already.")
    else:
        say(f"{place}: from {before or 'no schema'} to schema {after}.")


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
    say(f"The ledger is {place}.")


@ledger.command()
@click.option("--exact", is_flag=True, help="Count all; takes longer the more there are.")
@JSON
@click.pass_context
def status(context: click.Context, *, exact: bool, as_json: bool) -> None:
    """Count the jobs of every dependency by state.

    A number with a plus is where counting ended: there are more.
    """
    limit = None if exact else COUNT_LIMIT
    found = ledger_of(context).counts(limit=limit)
    counts = sorted(found, key=lambda one: (one.dependency, one.state))
    rows = [count_row(one) for one in counts]
    if not as_json:
        place = place_of(read_url(Resilience.of(context.obj.app).settings.ledger_url))
        say(f"{place}{'' if counts else ' holds no jobs.'}")
        rows = [{**count_row(one), "jobs": one.amount, "oldest": _oldest(one)} for one in counts]
    if rows or as_json:
        print_rows(rows, COLUMNS, as_json=as_json)


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
