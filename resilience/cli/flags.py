"""`celery -A app resilience flag`, `brownout`: see features, and order them on and off."""

from typing import Any

import click

from resilience.cli.breakers import ACTOR, REASON
from resilience.cli.ledger import ledger_of
from resilience.cli.rows import JSON, all_of, print_rows
from resilience.cli.words import COUNT, briefly, duration, moment, say, say_json
from resilience.declared import check_known
from resilience.errors import ResilienceError
from resilience.flags.document import BROWNOUT, Order, State
from resilience.ledger.orders import HISTORY_LIMIT
from resilience.levels import Level
from resilience.monitor.rows import connected, flag_rows
from resilience.store.election import LEADER
from resilience.tasks.resilience import Resilience

DECISION = ("feature", "enabled", "level", "source", "reason", "since", "until")
COLUMNS = (*DECISION, "order_version", "cost")
HISTORY = ("at", "order", "until", "actor", "reason", "version")
OFF = "off"
OPTIONS = (
    ACTOR,
    REASON,
    click.option("--seen", type=int, help="Version of the last order; refused if it is another."),
    JSON,
)
FOR = click.option("--for", "seconds", type=duration, default="30m", show_default=True)


@click.group()
def flag() -> None:
    """See features, and order them on and off in the whole fleet."""


@flag.command("list")
@JSON
@click.pass_context
def list_flags(context: click.Context, *, as_json: bool) -> None:
    """List the features: whether they are on, who decided that, since when, and what they cost."""
    adopted = connected(Resilience.of(context.obj.app))
    rows = [{name: row[name] for name in COLUMNS} for row in flag_rows(adopted)]
    rows = rows if as_json else [_readable(row, adopted.fleet_time()) for row in rows]
    print_rows(rows, COLUMNS, as_json=as_json)


def _order(state: State, text: str) -> None:
    @flag.command(state, help=text)
    @click.argument("name")
    @all_of(OPTIONS if state == "auto" else (FOR, *OPTIONS))
    @click.pass_context
    def order(context: click.Context, /, name: str, *, as_json: bool, **options: Any) -> None:  # noqa: ANN401 - as the options say
        flags = connected(Resilience.of(context.obj.app)).flags
        check_known(name, flags.features, "No feature is called")
        made = flags.order(name, state, **options)
        until = f"{state}, until {moment(made.until)}"
        end = "left to the controller" if state == "auto" else until
        _report(context, name, made, f"{name}: {end}", as_json=as_json)


_order("on", "Keep a feature on, whatever the controller or a brownout would shed.")
_order("off", "Shed a feature.")
_order("auto", "End an order: the controller and the declaration decide again.")


@flag.command()
@click.argument("name")
@click.option("--share", type=float, default=0.01, show_default=True, help="At most 0.5.")
@click.option("--for", "seconds", type=duration, default="5m", show_default=True)
@ACTOR
@REASON
@click.option("--stop", is_flag=True, help="End the trial now.")
@click.pass_context
def trial(context: click.Context, /, name: str, *, stop: bool, **options: Any) -> None:  # noqa: ANN401 - as the options say
    """Measure what a feature costs: shed it for a --share of calls, and measure as many others.

    The trial runs in the whole fleet, without this command. `flag list` shows what it found, which
    the controller then uses; --stop ends it now, with what it has measured.
    """
    flags = connected(Resilience.of(context.obj.app)).flags
    check_known(name, flags.features, "No feature is called")
    if stop:
        flags.stop_trial(name)
        say(f"{name}: trial ended")
        return
    plan = flags.start_trial(name, **options)
    say(f"{name}: trial on {plan.share:.3g} of the calls, until {moment(plan.until)}")


@flag.command()
@click.argument("name")
@click.option("--limit", type=COUNT, default=HISTORY_LIMIT, show_default=True)
@JSON
@click.pass_context
def history(context: click.Context, name: str, limit: int, *, as_json: bool) -> None:
    """List the orders of a feature, newest first; NAME `brownout` lists those of brownouts."""
    features = Resilience.of(context.obj.app).features
    orders = ledger_of(context).orders.history(name, limit=limit)
    if not orders:  # one that was declared once may have some
        check_known(name, [*features, BROWNOUT], "No feature is called")
    print_rows([_plain(one) for one in orders], HISTORY, as_json=as_json)


@click.command()
@click.argument("level")
@all_of((FOR, *OPTIONS))
@click.pass_context
def brownout(context: click.Context, /, level: str, *, as_json: bool, **options: Any) -> None:  # noqa: ANN401 - as the options say
    """Shed every feature whose level is at most LEVEL: a number or a name; `off` ends that.

    Then the leading worker restores the features, the last one shed first. `flag history brownout`
    shows the version for --seen.
    """
    wanted, adopted = _level(level), connected(Resilience.of(context.obj.app))
    flags = adopted.flags
    made = flags.brownout(wanted, **options)
    shed = [name for name, one in flags.features.items() if one.default > flags.enabled(name)]
    does = f"{', '.join(shed) or 'nothing'} shed, until {moment(made.until)}"
    does = does if wanted else "the controller restores the features"
    _report(context, BROWNOUT, made, f"brownout {made.said}: {does}", as_json=as_json)
    key = adopted.store.key(LEADER)
    if not adopted.store.run(lambda client: client.exists(key)):
        say("No worker leads now: start one, as it is what restores the features.", err=True)


def _readable(row: dict[str, Any], now: float) -> dict[str, Any]:
    since, until, cost = row["since"], row["until"], row["cost"]
    text = "" if cost["seconds"] is None else f"{cost['seconds']:.3g} s"
    half = f" ± {(cost['high'] - cost['low']) / 2:.2g}" if "low" in cost else " (given)"
    return {
        **row,
        "enabled": "on" if row["enabled"] else OFF,
        "since": since and f"{briefly(now - since)} ago",
        "until": until and f"in {briefly(until - now)}",
        "cost": text and text + half,
    }


def _report(context: click.Context, name: str, made: Order, said: str, *, as_json: bool) -> None:
    """Print an order that is in force, and on standard error whether the ledger lacks it."""
    if as_json:
        say_json({"name": name, **_plain(made)}, indent=None)
    else:
        say(said)
    try:
        ledger_of(context).orders.history(name, limit=1)
    except ResilienceError as error:
        msg = (
            f"The order is in force but is not in the ledger ({error}). It is lost if the store is "
            "flushed. The leading worker retries."
        )
        say(msg, err=True)


def _plain(order: Order) -> dict[str, Any]:
    return {"order": order.said, **order.model_dump(exclude={"state", "kept"})}


def _level(text: str) -> Level:
    known = {OFF: Level.FULL}
    known |= {str(level.value): level for level in Level if level}
    known |= {level.name.lower(): level for level in Level if level}
    check_known(text.lower(), known, "No level of a brownout is called")
    return known[text.lower()]
