"""Tasks run as functions in unit tests."""

from contextlib import ExitStack
from typing import Any

from celery import Celery, Task

from resilience.outcome import Outcome
from resilience.partial import outcome_of
from resilience.tasks import Resilience


class TaskRunner:
    """Runs tasks in this process, with their policies, and without broker, store and ledger.

    Breakers, flags and slots of an app begin anew with its first task here, and are given up with
    the exit stack.
    """

    def __init__(self, stack: ExitStack) -> None:
        """Leave the apps as they were when *stack* ends."""
        self._stack = stack
        self._apps: set[Celery[Any]] = set()

    def __call__(self, task: Task[Any, Any], /, *args: Any, **kwargs: Any) -> Outcome[Any]:  # noqa: ANN401 - of the task
        """Return what *task* answers to these arguments, plain values as FULL.

        What it publishes runs at once, in this process as well.

        Raises:
            Exception: What the task ends in, after Celery's own retries.
            ConfigurationError: Its app was never adopted.
        """
        app = task.app
        if app not in self._apps:
            self._stack.enter_context(Resilience.of(app).alone())
            self._apps.add(app)
        result = task.apply(args, kwargs, throw=False)
        if isinstance(result.result, BaseException):
            raise result.result
        return outcome_of(result.result, dependency=getattr(task, "dependency", None))
