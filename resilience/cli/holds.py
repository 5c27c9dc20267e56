"""`celery -A app resilience hold`, `release`, `holds`: queues from which no worker takes jobs."""

from dataclasses import asdict

import click

from resilience.cli.breakers import ACTOR, REASON, SECONDS
from resilience.cli.rows import JSON, print_rows
from resilience.cli.words import moment, say
from resilience.declared import check_known
from resilience.monitor.rows import queues_of
from resilience.tasks.resilience import Resilience

COLUMNS = ("name", "since", "until", "actor", "reason")


@click.command()
@click.argument("name")
@SECONDS
@ACTOR
@REASON
@click.pass_context
def hold(context: click.Context, name: str, seconds: float, actor: str, reason: str) -> None:
    """Let no worker take jobs of a dependency, or from one queue, for --seconds.

    The name of a dependency stands for all its queues, the name of a queue for that one: a lane,
    the retry queue, the default queue or one of task_queues. A queue that bears the name of its
    dependency cannot be held without the others.

    Jobs wait in the broker; jobs that already run end. Workers learn of the order within two
    seconds, and a worker that starts meanwhile takes no jobs.
    """
    adopted = _checked(context, name)
    made = adopted.holds.hold(name, seconds=seconds, actor=actor, reason=reason)
    say(f"{name}: held until {moment(made.until)}")


@click.command()
@click.argument("name")
@ACTOR
@click.option("--reason", default="released by hand", show_default=True)
@click.pass_context
def release(context: click.Context, name: str, actor: str, reason: str) -> None:
    """Let workers take jobs again, few at first."""
    adopted = _checked(context, name)
    was = adopted.holds.release(name, actor=actor, reason=reason)
    say(f"{name}: released" if was else f"{name}: was not held")


@click.command()
@JSON
@click.pass_context
def holds(context: click.Context, *, as_json: bool) -> None:
    """List what somebody ordered to be held: since when, until when, who and why."""
    adopted = Resilience.of(context.obj.app)
    orders, now = adopted.holds.all(), adopted.pulse.refresh()
    rows = [{**asdict(one), "seconds_left": round(one.until - now, 1)} for one in orders.values()]
    print_rows(rows, COLUMNS, as_json=as_json, whole=COLUMNS[:1])


def _checked(context: click.Context, name: str) -> Resilience:
    adopted = Resilience.of(context.obj.app)
    known = dict.fromkeys([*adopted.dependencies, *queues_of(adopted)])
    check_known(name, known, "No dependency or queue is called")
    return adopted
