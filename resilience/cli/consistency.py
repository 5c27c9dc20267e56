"""`celery -A app resilience consistency`: how far primaries are, and how far replicas may lag."""

from collections.abc import Mapping
from typing import Any

import click

from resilience.cli.breakers import ACTOR, REASON
from resilience.cli.flags import FOR
from resilience.cli.rows import JSON, all_of, print_rows
from resilience.cli.words import briefly, duration_in_seconds, moment, say, say_json
from resilience.consistency.shared import LagOrder, SharedPositions
from resilience.declared import check_order
from resilience.events import LagOrdered
from resilience.tasks.resilience import Resilience

COLUMNS = ("databases", "position", "age", "order", "seconds", "until", "actor", "reason")
DATABASES = click.option("--databases", "name", default="default", show_default=True)
OPTIONS = (FOR, ACTOR, REASON, DATABASES, JSON)


@click.group()
def consistency() -> None:
    """See how far databases are, and order how far replicas that are read from may lag."""


@consistency.command()
@JSON
@click.pass_context
def show(context: click.Context, *, as_json: bool) -> None:
    """List the databases: how far each primary was, how long ago, and the order in force.

    Only what processes have shared in the last five minutes is known here; no database is asked.
    """
    positions = Resilience.of(context.obj.app).positions
    rows = [_row(positions, name, as_json=as_json) for name in positions.sources()]
    print_rows(rows, COLUMNS, as_json=as_json)


@consistency.command("allow-lag")
@click.argument("lag", metavar="SECONDS", type=duration_in_seconds)
@all_of(OPTIONS)
@click.pass_context
def allow_lag(context: click.Context, /, lag: float, **options: Any) -> None:  # noqa: ANN401 - as the options say
    """Read also from replicas that lag by up to SECONDS, if that is more than the app allows.

    Users still see what they wrote in the last 30 seconds. If SECONDS is more than that, an answer
    may lack an older write of theirs without being marked.
    """
    _order(Resilience.of(context.obj.app), lag, **options)


@consistency.command("ignore-lag")
@all_of(OPTIONS)
@click.pass_context
def ignore_lag(context: click.Context, /, **options: Any) -> None:  # noqa: ANN401 - as above
    """Read from replicas however far they lag.

    Users still see what they wrote in the last 30 seconds. An answer may lack an older write of
    theirs without being marked.
    """
    _order(Resilience.of(context.obj.app), None, **options)


@consistency.command("obey-lag")
@ACTOR
@click.option("--reason", default="ended by hand", show_default=True)
@DATABASES
@JSON
@click.pass_context
def obey_lag(context: click.Context, actor: str, reason: str, name: str, *, as_json: bool) -> None:
    """End an order: how far replicas may lag is again as the app says."""
    check_order(f"lag of {name}", actor, reason)
    adopted = Resilience.of(context.obj.app)
    ended = adopted.positions.exchange(name).order
    adopted.positions.order(name, None)
    if ended is not None:
        signed = {"actor": actor, "reason": reason}
        adopted.announce(
            LagOrdered(source=name, order="obey-lag", seconds=None, until=ended.until, **signed)
        )
    text = "as the app says" if ended else "there was no order"
    if as_json:
        say_json({"databases": name, **_plain(None)}, indent=None)
    else:
        say(f"{name}: {text}")


def _order(
    adopted: Resilience, lag: float | None, *, name: str, seconds: float, as_json: bool, **by: str
) -> None:
    positions = adopted.positions
    seen = positions.exchange(name)
    until = seen.now + seconds
    order = LagOrder(seconds=lag, until=until, since=seen.now, **by)
    positions.order(name, order)
    adopted.announce(LagOrdered(source=name, order=_command(order), seconds=lag, until=until, **by))
    allowed = "however far they lag" if lag is None else f"that lag by up to {lag:g} s"
    text = f"{name}: reads go to replicas {allowed}, until {moment(until)}"
    if as_json:
        say_json({"databases": name, **_plain(order)}, indent=None)
    else:
        say(text)
    if not seen.samples:
        known = ", ".join(one for one in positions.sources() if one != name) or "none"
        msg = f"No process has used databases {name!r} in the last 5 minutes. Others: {known}."
        say(msg, err=True)


def _row(positions: SharedPositions, name: str, *, as_json: bool) -> Mapping[str, object]:
    seen = positions.exchange(name)
    newest = seen.samples[-1] if seen.samples else None
    lines = {} if newest is None else newest.position.lines
    numbers = {line: number for line, (number, _) in lines.items()}
    age = None if newest is None else seen.now - newest.at
    row = {"databases": name, "position": numbers, "age": age, **_plain(seen.order)}
    if as_json:
        return row
    return {
        **row,
        "position": ", ".join(f"{line} {number}" for line, number in numbers.items()),
        "age": None if age is None else f"{briefly(age)} ago",
        "until": None if row["until"] is None else f"in {briefly(row['until'] - seen.now)}",
    }


def _plain(order: LagOrder | None) -> dict[str, Any]:
    """Return *order* as the fields that a row and JSON show; all are None if there is none."""
    if order is None:
        return dict.fromkeys(COLUMNS[3:])
    return {"order": _command(order), **order.model_dump(exclude={"since"})}


def _command(order: LagOrder) -> str:
    """Return the name of the command that gave *order*."""
    return "ignore-lag" if order.seconds is None else "allow-lag"
