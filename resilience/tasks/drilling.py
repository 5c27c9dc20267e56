"""Drills of fallback chains wait for the end of the job in which a call is drilled."""

import math
from collections.abc import Callable
from typing import Any

from celery import Task, signals
from celery._state import get_current_task
from celery.app.task import Context

from resilience.clock import SystemClock
from resilience.pipeline import Pipeline

WAITING = "resilience_drills"
"""Attribute of the request with the drills that wait for the end of its job."""


def drill_at_end_of_job(pipeline: Pipeline) -> None:
    """Let calls of *pipeline* that a job makes be drilled when the job has ended, if at all.

    By then the answer is stored and what follows the job is published, and the process or thread
    that ran the body has not begun another job.
    """
    if pipeline.drills is not None:
        pipeline.drills.later = _put_off


def _put_off(drill: Callable[[float], None]) -> bool:
    """Run *drill* when the job that runs here has ended; return False where no job runs."""
    task: Task[Any, Any] | None = get_current_task()
    request: Context | None = None if task is None else task.request_stack.top
    if request is None or request.called_directly:
        return False
    waiting = request.get(WAITING)
    if waiting is None:
        request.update({WAITING: [drill]})
        signals.task_postrun.connect(_run_drills)
    else:
        waiting.append(drill)
    return True


def _run_drills(task: Any, **_: object) -> None:  # noqa: ANN401 - Celery's
    request = task.request_stack.top
    for drill in () if request is None else request.get(WAITING) or ():
        drill(_seconds_left(task, request))


def _seconds_left(task: Any, request: Context) -> float:  # noqa: ANN401 - Celery's
    """Return the seconds until the first time limit of the job ends; infinite without any."""
    of_worker = getattr(getattr(task.app, "resilience", None), "time_limit_seconds", None)
    given = (*(request.timelimit or ()), task.time_limit, task.soft_time_limit, of_worker)
    limit = min((float(one) for one in given if one), default=math.inf)
    now = SystemClock.monotonic()
    return limit - (now - (request.get("entered") or now))
