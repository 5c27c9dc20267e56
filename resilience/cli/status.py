"""`celery -A app resilience status`: what degrades now, why, and what to do next."""

import json
import threading
from collections.abc import Callable, Iterable
from dataclasses import asdict
from typing import Any

import click
from redis import RedisError

from resilience.cli.breakers import breaker_rows, connected
from resilience.cli.commandline import celery_command
from resilience.cli.flags import flag_rows
from resilience.cli.holds import queue_names
from resilience.cli.rows import JSON
from resilience.cli.words import moment, plain
from resilience.errors import ResilienceError
from resilience.flags import Source
from resilience.ledger import State
from resilience.tasks.admission import depth_of
from resilience.tasks.publishing import PUBLISH_ERRORS, publish_within
from resilience.tasks.resilience import Resilience

WATCH_SECONDS = 2.0
BROKER_SECONDS = 2.0
"""Longest wait for the depths of all queues."""

AWAY = (ResilienceError, RedisError, *PUBLISH_ERRORS)


@click.command()
@click.option("--watch", is_flag=True, help="Show it again every two seconds, until Ctrl-C.")
@JSON
@click.pass_context
def status(context: click.Context, *, watch: bool, as_json: bool) -> None:
    """Show the level of the app, the reasons, what waits, and what to do next.

    Shows the rest, and what is not known, while the store, the broker or the ledger is down; the
    exit code is 0 then, too. With --watch and --json each look is a line.
    """
    adopted = Resilience.of(context.obj.app)
    context.call_on_close(adopted.ledger.close)
    command = " ".join(["celery", *celery_command(context)[3:], "resilience"])
    try:
        while True:
            found = look(adopted, command)
            if as_json:
                click.echo(json.dumps(found, indent=None if watch else 2))
            else:
                lines = "\n".join(_lines(found))
                if watch:
                    click.clear()
                click.echo(lines)
            if not watch:
                return
            threading.Event().wait(WATCH_SECONDS)
    except KeyboardInterrupt:
        return


def look(adopted: Resilience, command: str) -> dict[str, Any]:
    """Return all that is known; `unknown` says why the rest is not.

    Args:
        adopted: What the app declared.
        command: Begins each command that `next` names.
    """
    found: dict[str, Any] = {"level": None, "since": None, "reasons": [], "breakers": []}
    found |= {"holds": [], "flags": [], "queues": {}, "dead": {}, "more_dead": []}
    found |= {"next": [], "unknown": {}}
    sources: dict[str, Callable[[Resilience], dict[str, Any]]]
    sources = {"store": _from_store, "broker": _from_broker, "ledger": _from_ledger}
    for name, ask in sources.items():
        try:
            found |= ask(adopted)
        except AWAY as error:
            found["unknown"][name] = str(error) or repr(error)
    found["next"] = [f"{command} {words}" for words in dict.fromkeys(_next(found))]
    return found


def _from_store(adopted: Resilience) -> dict[str, Any]:
    connected(adopted)
    holds = [asdict(one) for one in adopted.holds.all().values()]
    degradation = adopted.degradation
    return {
        "level": degradation.level.name,
        "since": min((one.since for one in degradation.reasons if one.since), default=None),
        "reasons": [{**asdict(one), "level": one.level.name} for one in degradation.reasons],
        "breakers": breaker_rows(adopted),
        "holds": holds,
        "flags": flag_rows(adopted),
    }


def _from_broker(adopted: Resilience) -> dict[str, Any]:
    queues: dict[str, int] = {}

    def ask(given_up: threading.Event) -> None:
        with adopted.app.producer_or_acquire(None) as producer:
            for name in queue_names(adopted):
                if not given_up.is_set():
                    queues[name] = depth_of(adopted.app, producer, name)

    if not publish_within(BROKER_SECONDS, ask):
        msg = f"the broker did not answer within {BROKER_SECONDS:g} s"
        raise TimeoutError(msg)
    return {"queues": queues}


def _from_ledger(adopted: Resilience) -> dict[str, Any]:
    dead = [one for one in adopted.ledger.counts() if one.state is State.DEAD]
    return {
        "dead": {one.dependency: one.jobs for one in dead},
        "more_dead": [one.dependency for one in dead if one.more],
    }


def _next(found: dict[str, Any]) -> Iterable[str]:
    """Return what may be done about each reason, in words of the command line."""
    sources = {row["feature"]: row["source"] for row in found["flags"]}
    for one in found["reasons"]:
        name = one["name"]
        if one["kind"] == "open":
            yield f"breaker reset {name} --reason …"
        elif one["kind"] == "held":
            yield f"release {name}"
        elif sources[name] == Source.BROWNOUT:
            yield "brownout off --reason …"
        elif sources[name] == Source.ORDER:
            yield f"flag auto {name} --reason …"
        else:
            yield f"flag on {name} --for 30m --reason …"
    yield from (f"dead list --dependency {name}" for name in found["dead"])


def _lines(found: dict[str, Any]) -> Iterable[str]:
    since = f" since {moment(found['since'])}" if found["since"] else ""
    yield f"level: {found['level'] or 'not known'}{since}"
    for one in found["reasons"]:
        until = f", until {moment(one['until'])}" if one["until"] else ""
        yield f"  {one['kind']} {one['name']}: {one['level']}, {plain(one['why'])}{until}"
    facts = {
        "breakers": (f"{r['dependency']} {r['state']}" for r in found["breakers"]),
        "holds": (f"{r['name']} by {plain(r['actor'])}" for r in found["holds"]),
        "flags": (f"{r['feature']} {'on' if r['enabled'] else 'off'}" for r in found["flags"]),
        "queues": (f"{name} {depth}" for name, depth in found["queues"].items() if depth),
        "dead letters": (
            f"{name} {jobs}{'+' if name in found['more_dead'] else ''}"
            for name, jobs in found["dead"].items()
        ),
    }
    for name, texts in facts.items():
        yield f"{name}: {', '.join(texts) or 'none'}"
    for name, error in found["unknown"].items():
        yield f"not known: what the {name} has; {plain(error)}"
    if found["next"]:
        yield "what to do next:"
    yield from (f"  {words}" for words in found["next"])
