"""`celery -A app resilience flower`: Flower with its Degradation page."""

import click
from celery.bin.base import CeleryCommand

from resilience.monitor.flower import install


@click.command(cls=CeleryCommand, context_settings={"ignore_unknown_options": True})
@click.argument("tornado_argv", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def flower(context: click.Context, tornado_argv: tuple[str, ...]) -> None:
    """Run Flower with its Degradation page; all options of `celery flower` may follow."""
    from flower.command import flower as command  # type: ignore[import-untyped]  # noqa: PLC0415

    install()
    context.invoke(command, tornado_argv=tornado_argv)
