"""Jobs that kill their workers."""

import functools
from collections.abc import Mapping
from typing import Any

from celery.app.task import Context
from celery.exceptions import WorkerLostError

from resilience.broker.quorum import COUNT_HEADER, came_back_too_often
from resilience.errors import UnkeepableError, text_of
from resilience.events import JobUnkept
from resilience.tasks.envelope import crashes_of, ledger_header
from resilience.tasks.fire import LEDGER_ERRORS, POISON_LOST, UNKEPT_SECONDS
from resilience.tasks.kept import give_up, job_of, options_of
from resilience.worker.request import ResilientRequest
from resilience.worker.results import logged


def is_poison(headers: Mapping[str, Any] | None) -> bool:
    """Tell whether a job's worker died so often that no further one shall take it."""
    return crashes_of(headers) >= POISON_LOST or came_back_too_often(headers)


def bury(request: ResilientRequest, timer: Any) -> None:  # noqa: ANN401 - kombu's
    """Make a dead letter of a job that kills its workers, and let everybody hear of it.

    While the ledger is away the broker keeps the job, and it is tried again.

    Args:
        request: Not begun.
        timer: Of the worker's event loop.
    """
    crashes = crashes_of(request.request_dict) or request.request_dict.get(COUNT_HEADER)
    error = WorkerLostError(f"{crashes} workers died while they held the job")
    try:
        _keep(request, error)
    except (*LEDGER_ERRORS, UnkeepableError) as lost:
        said = JobUnkept(task=request.name, id=str(request.id), error=text_of(lost))
        request.announce(said)
        if not isinstance(lost, UnkeepableError):
            timer.call_after(UNKEPT_SECONDS, functools.partial(request.reject, requeue=True))
            return
    end(request, error)


def end(request: ResilientRequest, error: Exception) -> None:
    """Let all who wait for a job hear of *error*, and acknowledge it: it was given up."""
    context: Context = request._context  # type: ignore[attr-defined] # noqa: SLF001
    with logged(request.id):
        request.task.backend.mark_as_failure(
            request.id, error, request=context, store_result=request.store_errors
        )
    request.give_up(error)


def _keep(request: ResilientRequest, error: WorkerLostError) -> None:
    task, context = request.task, request._context  # type: ignore[attr-defined] # noqa: SLF001
    queue = (request.delivery_info or {}).get("routing_key") or str(request.dependency)
    known = ledger_header(context)
    job = job_of(
        task,
        tuple(context.args or ()),
        dict(context.kwargs or {}),
        options_of(task, context),
        queue=queue,
        ledger=known,
        age_seconds=0.0,
    )
    give_up(request.resilience, job, "poison", error)
