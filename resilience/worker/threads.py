"""Jobs of a threads pool, each in a thread that the pool's own can give up; see `Job`."""

import functools
from collections.abc import Callable
from typing import Any

from celery import Task
from celery.concurrency.thread import TaskPool

from resilience.budget.jobs import Job
from resilience.tasks.refusal import REFUSED, Refusal
from resilience.tasks.resilience import Resilience
from resilience.tasks.task import ResilientTask


def use_job_threads(pool: Any, resilience: Resilience) -> None:  # noqa: ANN401 - Celery's, of any kind
    """Let *pool*, if it is one of threads, run the jobs of resilient tasks in job threads.

    Those of other tasks, which nothing cuts, run in the pool's threads as ever.
    """
    if not isinstance(pool, TaskPool) or "apply_async" in vars(pool):
        return
    apply, tasks = pool.apply_async, resilience.app.tasks

    def apply_async(
        target: Callable[..., Any],
        args: Any = None,  # noqa: ANN401 - Celery's
        kwargs: Any = None,  # noqa: ANN401
        **options: Any,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401
        task = tasks.get(args[0]) if args else None
        if isinstance(task, ResilientTask):
            expected = _expected_seconds(task, resilience)
            target = functools.partial(_in_job_thread, resilience, task, expected, target)
        return apply(target, args, kwargs, **options)

    pool.apply_async = apply_async  # type: ignore[method-assign]


def _expected_seconds(task: ResilientTask, resilience: Resilience) -> float | None:
    if task.dependency is None:
        return None
    return resilience.dependencies.require(task.dependency, where=f"task {task.name}").timeout


def _in_job_thread(
    resilience: Resilience,
    task: Task[Any, Any],
    expected: float | None,
    trace: Callable[..., Any],
    *args: Any,  # noqa: ANN401 - Celery's
) -> Any:  # noqa: ANN401 - what Celery's pool hands back
    """Trace a job in a job thread; end it here if that is given up."""

    def take_over(given_up: object) -> Any:  # noqa: ANN401 - as above
        name, task_id, request, *rest = args
        refusal = given_up if isinstance(given_up, Refusal) else Refusal(_counted(given_up))
        return trace(name, task_id, {**request, REFUSED: refusal}, *rest)

    def _counted(error: Any) -> Exception:  # noqa: ANN401 - what a limit makes
        """Count what the body's breaker cannot, as the body has not ended."""
        dependency = getattr(task, "dependency", None)
        if dependency is not None:
            breaker = resilience.breaker(dependency)
            if breaker.blames(error):
                breaker.record_failure(error)
        counted: Exception = error
        return counted

    job = Job(task, functools.partial(trace, *args), expected)
    return job.run(take_over)
