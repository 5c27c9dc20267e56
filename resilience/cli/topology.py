"""`celery -A app resilience topology`: the workers, as process managers want them written."""

import math
from collections.abc import Sequence

import click

from resilience.cli import manifests
from resilience.cli.breakers import who
from resilience.cli.commandline import celery_command
from resilience.cli.manifests import Worker
from resilience.cli.words import say_json
from resilience.cli.workers import worker_programs
from resilience.errors import ConfigurationError
from resilience.settings import PREFIX, Settings
from resilience.tasks.ledger_check import uses_ledger
from resilience.tasks.resilience import Resilience

FORMATS = ("procfile", "compose", "systemd", "kubernetes")


@click.command()
@click.option("--format", "kind", type=click.Choice(FORMATS), default="procfile")
@click.option("--image", default="app:latest", help="For compose and kubernetes.")
@click.option("--user", help="For systemd: the user of the workers; by default yours.")
@click.option("--json", "as_json", is_flag=True, help="Print the workers as a JSON list instead.")
@click.pass_context
def topology(
    context: click.Context, kind: str, image: str, user: str | None, *, as_json: bool
) -> None:
    """Print the workers of all dependencies for a process manager.

    They are those that `up` runs, each with the time it needs to stop and the probe of its health.
    If tasks need the ledger, each worker requires its address, one for all of them. Other
    addresses, secrets and resources are yours to add.
    """
    listed = workers(context)
    if as_json:
        say_json([worker.as_dict() for worker in listed])
        return
    write = {
        "procfile": lambda: manifests.procfile(listed),
        "compose": lambda: manifests.compose(listed, image),
        "systemd": lambda: manifests.systemd(listed, _not_root(user or who())),
        "kubernetes": lambda: manifests.kubernetes(listed, image),
    }
    click.echo(write[kind](), nl=False)


def _not_root(user: str) -> str:
    """Return *user*, who must not be root.

    Raises:
        ConfigurationError: It is root, who should run no worker.
    """
    if user in {"root", "0", "uid 0"}:
        msg = "a worker should not run as root; name the user who runs them: topology --user NAME"
        raise ConfigurationError(msg)
    return user


def _needed(adopted: Resilience) -> Sequence[str]:
    """Return the variable with the ledger's address, unless no task needs it or the app sets it."""
    adopted.app.loader.import_default_modules()
    by_variable = Settings.from_environment().ledger_url == adopted.settings.ledger_url
    used = uses_ledger(adopted)
    return [f"{PREFIX}LEDGER_URL"] if used and by_variable else []


def workers(context: click.Context) -> list[Worker]:
    """Return the workers that belong to the app."""
    adopted = Resilience.of(context.obj.app)
    adopted.check_queues()
    needed = _needed(adopted)
    _, _, _, *options = celery_command(context)  # without `python -m celery`
    celery = ["celery", *("-A" if word == "--app" else word for word in options)]
    return [
        Worker(
            name=program.name,
            command=[*celery, "resilience", "worker", program.name],
            stop_seconds=math.ceil(program.stop_seconds),
            app=adopted.app.main or "",
            environment=needed,
        )
        for program in worker_programs(adopted, [], []).values()
    ]
