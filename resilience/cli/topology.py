"""`celery -A app resilience topology`: the workers, as process managers want them written."""

import json
import math
from collections.abc import Callable, Mapping, Sequence

import click

from resilience.cli import manifests
from resilience.cli.commandline import celery_command
from resilience.cli.commands import worker_programs
from resilience.cli.manifests import Worker
from resilience.tasks.resilience import Resilience

FORMATS: Mapping[str, Callable[[Sequence[Worker], str], str]] = {
    "procfile": manifests.procfile,
    "compose": manifests.compose,
    "systemd": manifests.systemd,
    "kubernetes": manifests.kubernetes,
}


@click.command()
@click.option("--format", "kind", type=click.Choice(list(FORMATS)), default="procfile")
@click.option("--image", default="app:latest", help="For compose and kubernetes.")
@click.option("--json", "as_json", is_flag=True, help="Print the workers as a JSON list instead.")
@click.pass_context
def topology(context: click.Context, kind: str, image: str, *, as_json: bool) -> None:
    """Print the workers of all dependencies for a process manager.

    They are those that `up` runs, each with the time it needs to stop and the probe of its health.
    Addresses, secrets and resources are yours to add.
    """
    found = workers(context)
    if as_json:
        click.echo(json.dumps([one.as_dict() for one in found], indent=2))
        return
    click.echo(FORMATS[kind](found, image), nl=False)


def workers(context: click.Context) -> list[Worker]:
    """Return the workers that belong to the app.

    Raises:
        ConfigurationError: A dependency has the name of the default queue's worker.
    """
    adopted = Resilience.of(context.obj.app)
    adopted.check_queues()
    _, _, _, *options = celery_command(context)  # without `python -m celery`
    celery = ["celery", *("-A" if word == "--app" else word for word in options)]
    return [
        Worker(
            name=program.name,
            command=[*celery, "resilience", "worker", program.name],
            stop_seconds=math.ceil(program.stop_seconds),
        )
        for program in worker_programs(adopted, [], []).values()
    ]
