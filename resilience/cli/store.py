"""`celery -A app resilience store check`: values in the store that nobody can read."""

from dataclasses import asdict

import click

from resilience.cli.rows import JSON, print_rows
from resilience.monitor.stored import unreadable
from resilience.tasks.resilience import Resilience

COLUMNS = ("key", "name", "wrong", "repair", "repaired")
WRONG = 1


@click.group()
def store() -> None:
    """Look after what the store holds for the fleet."""


@store.command()
@click.option("--repair", is_flag=True, help="Delete or rewrite what nobody can read.")
@JSON
@click.pass_context
def check(context: click.Context, *, repair: bool, as_json: bool) -> None:
    """List the values in the store that nobody can read, and what --repair does about each.

    Such a value counts as absent for its name; everything else goes on. A repair deletes that
    value only, or writes the state of the features without it.

    Exit code 0: there are none, or all of them were repaired; 1: there are some.
    """
    found = [*unreadable(Resilience.of(context.obj.app), repair=repair)]
    print_rows([asdict(one) for one in found], COLUMNS, as_json=as_json, whole=COLUMNS[:1])
    left = sum(one.repair is not None and not one.repaired for one in found)
    context.exit(WRONG if left else 0)
