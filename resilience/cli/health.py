"""`celery -A app resilience health`: whether the workers of this host are well."""

import click

from resilience.cli.rows import JSON
from resilience.tasks.resilience import Resilience
from resilience.worker.liveness import identity, mark_directory
from resilience.worker.probe import report, verdicts


@click.command()
@click.argument("name", required=False)
@click.option("--live", is_flag=True, help="Judge process and event loop, not the broker.")
@JSON
@click.pass_context
def health(context: click.Context, name: str | None, *, live: bool, as_json: bool) -> None:
    """Tell whether the app's workers on this host are well; exit code 0: all are, 1: not.

    With NAME, of a dependency, `default` or a node, only that worker, and it must be there. The
    command `resilience-health` does the same without the app, and costs a probe much less.
    """
    adopted = Resilience.of(context.obj.app)
    found = verdicts(mark_directory(adopted.settings), name, **identity(adopted), live=live)
    context.exit(report(found, as_json=as_json))
