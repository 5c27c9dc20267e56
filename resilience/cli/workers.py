"""`celery -A app resilience worker`, `up` and `dependencies`: the bulkheads and who works there."""

import os
from collections.abc import Sequence

import click

from resilience.cli.commandline import bulkhead_worker, celery_command, default_worker
from resilience.cli.program import Program
from resilience.cli.rows import JSON, print_rows
from resilience.declared import check_known, nearest
from resilience.dependency import DEFAULT_WORKER
from resilience.errors import ConfigurationError
from resilience.tasks.resilience import Resilience
from resilience.worker.stopping import stop_seconds

PASSING = {"ignore_unknown_options": True}
"""Options that are not ours are those of `celery worker`."""
UNKNOWN = "No dependency is called"
COLUMNS = ("name", "queue", "concurrency", "pool", "timeout")


@click.command(context_settings=PASSING)
@click.argument("dependency")
@click.argument("extra", nargs=-1, metavar="[OPTIONS OF celery worker]")
@click.pass_context
def worker(context: click.Context, dependency: str, extra: tuple[str, ...]) -> None:
    """Run the worker of one dependency, or `default` for the app's default queue.

    It consumes from that queue only, within the limits of the bulkhead. Options of `celery worker`
    are passed on: … worker payments -l INFO
    """
    programs = worker_programs(_adopted(context), celery_command(context), extra)
    check_known(dependency, programs, UNKNOWN)
    _check_options(extra)
    command = list(programs[dependency].command)
    # In place of this process: signals and exit codes are the worker's own.
    os.execvp(command[0], command)  # nosec B606 # noqa: S606 - the user's own words, no shell


@click.command(context_settings=PASSING)
@click.option("--only", metavar="NAME,…", help="Only these, not all; 'default' is one of them.")
@click.argument("extra", nargs=-1, metavar="[OPTIONS OF celery worker]")
@click.pass_context
def up(context: click.Context, only: str | None, extra: tuple[str, ...]) -> None:
    """Run the workers of all dependencies.

    One more, named `default`, consumes from the app's default queue. All write to this terminal;
    Ctrl-C or SIGTERM stops them. One that ends is started again. Options of `celery worker` are
    passed on to every one: … up -l INFO
    """
    from resilience.cli.supervise import supervise  # noqa: PLC0415 - supervisor is an extra

    _check_options(extra)
    programs = worker_programs(_adopted(context), celery_command(context), extra)
    if only is not None:
        names = [name.strip() for name in only.split(",")]
        for name in names:
            check_known(name, programs, UNKNOWN)
        programs = {name: programs[name] for name in dict.fromkeys(names)}
    context.exit(supervise(list(programs.values())))


@click.command()
@JSON
@click.pass_context
def dependencies(context: click.Context, *, as_json: bool) -> None:
    """List the dependencies.

    With the limits of their bulkheads; timeouts are seconds.
    """
    rows = [
        {column: getattr(dependency, column) for column in COLUMNS}
        for dependency in _adopted(context).dependencies.values()
    ]
    print_rows(rows, COLUMNS, as_json=as_json)


def worker_programs(
    adopted: Resilience, celery: Sequence[str], extra: Sequence[str]
) -> dict[str, Program]:
    """Return the workers that `up` runs, by name: one per dependency, then the default queue's.

    Args:
        adopted: What the app declared.
        celery: As from `celery_command`.
        extra: Further options of `celery worker`, for all of them.
    """
    catalogue = adopted.dependencies
    commands = {
        name: bulkhead_worker(celery, dependency, extra) for name, dependency in catalogue.items()
    }
    commands[DEFAULT_WORKER] = default_worker(celery, adopted.app.conf.task_default_queue, extra)
    seconds = stop_seconds(adopted)
    return {
        name: Program(name, command, stop_seconds=seconds) for name, command in commands.items()
    }


def _adopted(context: click.Context) -> Resilience:
    found = Resilience.of(context.obj.app)
    found.check_queues()
    return found


def _check_options(extra: Sequence[str]) -> None:
    # `up payments` would start every worker with an argument that makes it fail, again and again.
    if not extra:
        return
    if not extra[0].startswith("-"):
        msg = f"{extra[0]!r} is no option of `celery worker`; several workers: up --only NAME,NAME"
        raise ConfigurationError(msg)
    from celery.bin.worker import worker as celery_worker  # noqa: PLC0415 - takes 0.1 s to import

    known = {name for one in celery_worker.params for name in (*one.opts, *one.secondary_opts)}
    for word in extra:
        name = word.partition("=")[0] if word.startswith("--") else word[:2]
        if name.startswith("-") and name not in known and not name[1:2].isdigit():
            hint = "".join(f" Did you mean {near!r}?" for near in nearest(name, [*known, "--only"]))
            msg = f"`celery worker` has no option {name!r}.{hint}"
            raise ConfigurationError(msg)
