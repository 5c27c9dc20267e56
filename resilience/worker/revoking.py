"""The revoke command of workers, which also ends what the ledger keeps of a job.

Workers remember what was revoked in memory, and only until they restart.
"""

from collections.abc import Collection
from typing import Any

from celery import Celery
from celery.utils.functional import maybe_list
from celery.worker import control

from resilience.errors import text_of
from resilience.events import JobUnkept
from resilience.tasks.fire import LEDGER_ERRORS
from resilience.tasks.resilience import Resilience
from resilience.worker.relay import any_kept

UNKNOWN = "?"


@control.control_command(name="revoke", variadic="task_id", signature="[id1 [id2 [... [idN]]]]")
def revoke(state: Any, task_id: Any, **options: Any) -> Any:  # noqa: ANN401 - Celery's signature
    """Revoke tasks by id, as Celery does, also those that wait in the ledger."""
    command: Any = control
    answer = command.revoke(state, task_id, **options)
    end_kept_rows(state.app, {str(one) for one in maybe_list(task_id) or ()})
    return answer


def end_kept_rows(app: Celery[Any], ids: Collection[str], task: str = UNKNOWN) -> None:
    """Let the ledger of *app* forget revoked jobs; dead letters stay.

    While the ledger is away the rows stay too: a worker drops the jobs when they are due, and then
    this is tried again.
    """
    resilience: Resilience | None = getattr(app, "resilience", None)
    if resilience is None or not any_kept(app.tasks.values()):
        return
    try:
        resilience.ledger.revoke(ids)
    except LEDGER_ERRORS as lost:
        for one in ids:
            resilience.announce(JobUnkept(task=task, id=one, error=text_of(lost)))
