"""Celery's `autoretry_for`, for errors that the body does not raise itself."""

from typing import Any

from celery import Task
from celery.utils.time import get_exponential_backoff_interval

from resilience.errors import RejectedError, retry_after_of
from resilience.tasks.neutral import NEUTRAL


def retry_if_declared(task: Task[Any, Any], error: Exception) -> None:
    """Do for *error* what Celery's `autoretry_for` does for what the body raises.

    Celery wraps the body alone. A refused call, a timeout, a spent budget or a ledger that is away
    come from around it. The retry begins no sooner than *error* says.

    A refusal stands for the errors that it spares the dependency, so any `autoretry_for` covers it.
    It spends no attempt: nothing was tried.

    For an error that Celery has seen already this does nothing that Celery has not done.

    Raises:
        Retry: The task will run again.
        Exception: *error*: its retries are used up, or would begin too late.
    """
    declared = tuple(getattr(task, "autoretry_for", ()))
    wanted = (*declared, RejectedError) if declared else ()
    unwanted = (*getattr(task, "dont_autoretry_for", ()), *NEUTRAL)
    request = task.request
    if request.called_directly or isinstance(error, unwanted) or not isinstance(error, wanted):
        return
    options: dict[str, Any] = dict(getattr(task, "retry_kwargs", {}))
    backoff = float(getattr(task, "retry_backoff", False))
    if backoff:
        options["countdown"] = get_exponential_backoff_interval(
            factor=int(max(1.0, backoff)),
            retries=request.retries,
            maximum=int(getattr(task, "retry_backoff_max", 600)),
            full_jitter=getattr(task, "retry_jitter", True),
        )
    earliest = retry_after_of(error)
    if earliest is not None and "eta" not in options:
        delay = options.get("countdown", task.default_retry_delay)
        options["countdown"] = max(float(delay or 0.0), earliest)
    most = options.get("max_retries", task.max_retries)
    free = isinstance(error, RejectedError) and not request.is_eager and most != 0
    if free:
        request.update(retries=request.retries - 1)
    try:
        raise task.retry(exc=error, **options)
    finally:
        if free:
            request.update(retries=request.retries + 1)
