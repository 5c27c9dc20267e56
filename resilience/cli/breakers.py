"""`celery -A app resilience breaker`: see circuits and order what they do."""

import getpass
import json
import os
from collections.abc import Callable, Mapping
from typing import Any

import click

from resilience.breaker import Breaker
from resilience.cli.rows import JSON, check_known, print_rows
from resilience.cli.words import duration_in_seconds, moment
from resilience.monitor.circuits import Change, breaker_rows, history_of
from resilience.monitor.rows import breakers_of, connected
from resilience.tasks.resilience import Resilience

HOLD_SECONDS = 600.0
"""How long an order holds unless told otherwise: nobody should have to remember to lift it."""
COLUMNS = ("dependency", "state", "since", "seconds_left", "opened", "why")
CHANGES = ("at", "event", "order", "reason", "error", "actor", "scope")


@click.group(invoke_without_command=True)
@JSON
@click.pass_context
def breaker(context: click.Context, *, as_json: bool) -> None:
    """List the circuits of the fleet, or order what one does."""
    if context.invoked_subcommand is None:
        _print_list(context, as_json=as_json)


@breaker.command("list")
@JSON
@click.pass_context
def list_circuits(context: click.Context, *, as_json: bool) -> None:
    """List the circuits of the fleet: what each does, since when and why."""
    _print_list(context, as_json=as_json)


@breaker.command()
@click.argument("dependency")
@JSON
@click.pass_context
def history(context: click.Context, dependency: str, *, as_json: bool) -> None:
    """List the last changes of a circuit, newest first, with their causes.

    The store keeps fifty, for a week. One that opens again and again without closing has two rows:
    the first time and the last.
    """
    adopted = connected(Resilience.of(context.obj.app))
    check_known(dependency, breakers_of(adopted), "No breaker guards")
    rows = [change.model_dump() for change in history_of(adopted, dependency)]
    if not as_json:
        rows = [{**row, "at": moment(row["at"])} for row in rows]
    print_rows(rows, list(Change.model_fields) if as_json else CHANGES, as_json=as_json)


def _print_list(context: click.Context, *, as_json: bool) -> None:
    rows = breaker_rows(connected(Resilience.of(context.obj.app)))
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    print_rows([_briefly(row) for row in rows], COLUMNS, as_json=False, whole=COLUMNS[:2])


def _briefly(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a circuit as `COLUMNS` shows it: its cause and its order in one cell."""
    order = f"{row['actor']}: {row['reason']}" if row["actor"] else None
    why = "\n".join(text for text in (order, row["why"], row["error"]) if text)
    return {**row, "since": row["since"] and moment(row["since"]), "why": why}


def who() -> str:
    """Return the user's name, or in a container that gave him none his number."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"


def _order(name: str, text: str, give: Callable[[Breaker, float, str, str], None]) -> None:
    @breaker.command(name, help=text)
    @click.argument("dependency")
    @click.option("--seconds", type=duration_in_seconds, default=HOLD_SECONDS, show_default=True)
    @click.option("--actor", default=who, show_default="who runs this")
    @click.option("--reason", required=True, help="Why; it is kept and announced.")
    @click.pass_context
    def order(
        context: click.Context, dependency: str, seconds: float, actor: str, reason: str
    ) -> None:
        known = breakers_of(connected(Resilience.of(context.obj.app)))
        check_known(dependency, known, "No breaker guards")
        give(known[dependency], seconds, actor, reason)
        click.echo(f"{dependency}: {known[dependency].state}")


_order(
    "open",
    "Refuse every call in the whole fleet for --seconds.",
    lambda one, seconds, actor, reason: one.force_open(seconds=seconds, actor=actor, reason=reason),
)
_order(
    "close",
    "Let every call through for --seconds, whatever fails.",
    lambda one, seconds, actor, reason: one.force_closed(
        seconds=seconds, actor=actor, reason=reason
    ),
)
_order(
    "observe",
    "Let every call through for --seconds, and announce when the circuit would have opened.",
    lambda one, seconds, actor, reason: one.observe(seconds=seconds, actor=actor, reason=reason),
)
_order(
    "reset",
    "Close the circuit and end any order; --seconds means nothing here.",
    lambda one, _seconds, actor, reason: one.reset(actor=actor, reason=reason),
)
