"""`celery -A app resilience breaker`: see circuits and order what they do."""

import getpass
import os
from collections.abc import Mapping
from typing import Any

import click

from resilience.cli.rows import JSON, all_of, print_rows
from resilience.cli.words import duration_in_seconds, say
from resilience.declared import check_known
from resilience.monitor.circuits import breaker_rows, history_of
from resilience.monitor.rows import breakers_of, connected
from resilience.tasks.resilience import Resilience


def who() -> str:
    """Return the user's name, or in a container that gave him none his number."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"


HOLD_SECONDS = 600.0
"""How long an order holds unless told otherwise: nobody should have to remember to lift it."""
SECONDS = click.option(
    "--seconds", type=duration_in_seconds, default=HOLD_SECONDS, show_default=True
)
ACTOR = click.option("--actor", default=who, show_default="who runs this")
REASON = click.option("--reason", required=True, help="Why; it is kept and announced.")
ORDERS = {
    "open": ("force_open", "Refuse every call in the whole fleet for --seconds."),
    "close": ("force_closed", "Let every call through for --seconds, whatever fails."),
    "observe": (
        "observe",
        "Let every call through for --seconds, and announce when the circuit would have opened.",
    ),
    "reset": ("reset", "Close the circuit and end any order."),
}
"""The method of a breaker that gives each order, and what the command's help says."""
COLUMNS = ("dependency", "state", "since", "seconds_left", "opened", "why")
CHANGES = ("at", "event", "order", "reason", "error", "actor", "scope")


@click.group(invoke_without_command=True)
@JSON
@click.pass_context
def breaker(context: click.Context, *, as_json: bool) -> None:
    """List the circuits of the fleet, or order what one does."""
    if context.invoked_subcommand is None:
        context.invoke(list_circuits, as_json=as_json)


@breaker.command("list")
@JSON
@click.pass_context
def list_circuits(context: click.Context, *, as_json: bool) -> None:
    """List the circuits of the fleet: what each does, since when and why."""
    rows = breaker_rows(connected(Resilience.of(context.obj.app)))
    rows = rows if as_json else [{**row, "why": _cause(row)} for row in rows]
    print_rows(rows, COLUMNS, as_json=as_json, whole=COLUMNS[:2])


def _cause(row: Mapping[str, Any]) -> str:
    """Return the order and the cause of a circuit as one cell of the table."""
    order = f"{row['actor']}: {row['reason']}" if row["actor"] else None
    return "\n".join(text for text in (order, row["why"], row["error"]) if text)


@breaker.command()
@click.argument("dependency")
@JSON
@click.pass_context
def history(context: click.Context, dependency: str, *, as_json: bool) -> None:
    """List the last changes of a circuit, newest first, with their causes.

    The store keeps fifty changes for a week. A circuit that opens again and again without closing
    has two rows: the first time and the last.
    """
    adopted = connected(Resilience.of(context.obj.app))
    check_known(dependency, breakers_of(adopted), "No breaker guards")
    rows = [change.model_dump() for change in history_of(adopted, dependency)]
    print_rows(rows, CHANGES, as_json=as_json)


def _add_order(name: str, method: str, text: str) -> None:
    @breaker.command(name, help=text)
    @click.argument("dependency")
    @all_of((ACTOR, REASON) if name == "reset" else (SECONDS, ACTOR, REASON))
    @click.pass_context
    def order(context: click.Context, /, dependency: str, **options: Any) -> None:  # noqa: ANN401 - as the options say
        known = breakers_of(connected(Resilience.of(context.obj.app)))
        check_known(dependency, known, "No breaker guards")
        getattr(known[dependency], method)(**options)
        say(f"{dependency}: {known[dependency].state}")


for _name, (_method, _text) in ORDERS.items():
    _add_order(_name, _method, _text)
