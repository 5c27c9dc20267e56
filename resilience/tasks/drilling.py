"""Drills of fallback chains wait for the end of the job in which a call is drilled."""

import math
import threading
from collections.abc import Callable
from typing import Any

from celery import signals
from celery._state import get_current_worker_task
from celery.app.task import Context

from resilience.clock import SystemClock
from resilience.pipeline import Pipeline
from resilience.tasks.marks import marks_of

_waiting: dict[str, list[Callable[[float], None]]] = {}
"""The drills of this process that wait for the end of a job, by its id."""
_lock = threading.Lock()
"""Held while the signal is connected or disconnected: it would cost each job 2 µs."""


def drill_at_end_of_job(pipeline: Pipeline) -> None:
    """Let calls of *pipeline* that a job makes be drilled when the job has ended, if at all.

    By then the answer is stored and what follows the job is published, and the process or thread
    that ran the body has not begun another job.
    """
    if pipeline.drills is not None:
        pipeline.drills.later = _put_off


def _put_off(drill: Callable[[float], None]) -> bool:
    """Run *drill* when the job that runs here has ended; return False where no job runs."""
    task = get_current_worker_task()
    if task is None:
        return False
    with _lock:
        _waiting.setdefault(str(task.request.id), []).append(drill)
        signals.task_postrun.connect(_run_drills)
    return True


def _run_drills(task: Any, task_id: str, state: str | None = None, **_: object) -> None:  # noqa: ANN401 - Celery's
    with _lock:
        drills = _waiting.pop(task_id, ())
        if not _waiting:
            signals.task_postrun.disconnect(_run_drills)
    if state is not None:  # else something ended the job from outside
        for drill in drills:
            drill(_seconds_left(task, task.request_stack.top))


def _seconds_left(task: Any, request: Context) -> float:  # noqa: ANN401 - Celery's
    """Return the seconds until the first time limit of the job ends; infinite without any."""
    of_worker = getattr(getattr(task.app, "resilience", None), "time_limit_seconds", None)
    given = (*(request.timelimit or ()), task.time_limit, task.soft_time_limit, of_worker)
    limit = min((float(one) for one in given if one), default=math.inf)
    now = SystemClock.monotonic()
    entered: float = marks_of(request).get("entered", now)
    return limit - (now - entered)
