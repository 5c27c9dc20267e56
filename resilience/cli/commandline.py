"""Command lines of the workers that belong to an app."""

import sys
from collections.abc import Sequence

import click
from click.core import ParameterSource

from resilience.dependency import DEFAULT_WORKER, Dependency

INHERITED = {"workdir"}


def celery_command(context: click.Context) -> list[str]:
    """Return `python -m celery` and the global options that the user gave before the command.

    `--workdir` is left out: this process is already there, and its children will be.
    """
    root = context.find_root()
    command = [sys.executable, "-m", "celery"]
    for parameter in root.command.params:
        name = parameter.name
        if name in INHERITED or root.get_parameter_source(name) is not ParameterSource.COMMANDLINE:
            continue
        command.append(parameter.opts[-1])
        if not (isinstance(parameter, click.Option) and parameter.is_flag):
            command.append(str(root.params[name]))
    return command


def bulkhead_worker(
    celery: Sequence[str], dependency: Dependency, extra: Sequence[str]
) -> list[str]:
    """Return the command line of the worker of *dependency*.

    Args:
        celery: As from `celery_command`.
        dependency: Whose queue it consumes, with the limits of its bulkhead.
        extra: Further options of `celery worker`; they win over the dependency's.
    """
    options = {
        "-Q": ",".join(dependency.queues),
        "-c": dependency.concurrency,
        "-P": dependency.pool,
        "-n": f"{dependency.name}@%h",
        "--prefetch-multiplier": dependency.prefetch,
    }
    flat = [str(word) for option in options.items() for word in option]
    return [*celery, "worker", *flat, *extra]


def default_worker(celery: Sequence[str], queue: str, extra: Sequence[str]) -> list[str]:
    """Return the command line of the worker for tasks without a dependency.

    Args:
        celery: As from `celery_command`.
        queue: The app's default queue.
        extra: Further options of `celery worker`.
    """
    return [*celery, "worker", "-Q", queue, "-n", f"{DEFAULT_WORKER}@%h", *extra]
