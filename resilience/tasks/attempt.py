"""What a call through a pipeline takes from the task that makes it."""

import inspect
from collections.abc import Callable
from typing import Any

from celery import Task
from celery.utils.time import get_exponential_backoff_interval

from resilience.errors import AttemptTimeoutError, RejectedError
from resilience.fallback import Step
from resilience.pipeline import Pipeline
from resilience.tasks.neutral import NEUTRAL
from resilience.tasks.resilience import Resilience


class TaskPipeline(Pipeline):
    """A pipeline around the body of one task."""

    def __init__(
        self,
        task: Task[Any, Any],
        dependency: str,
        fallbacks: tuple[Step, ...],
        resilience: Resilience,
    ) -> None:
        """Guard calls of *dependency* that *task* makes.

        Raises:
            ConfigurationError: *dependency* is unknown.
        """
        name = str(task.name)
        super().__init__(
            name,
            resilience.dependencies.require(dependency, where=f"task {name}"),
            resilience.answers,
            breaker=resilience.breaker(dependency),
            slots=resilience.slots(dependency),
            fallbacks=fallbacks,
            neutral=NEUTRAL,
            bugs=getattr(task, "bugs", None),
            listeners=resilience.listeners,
        )
        self._task = task
        self._signature = inspect.signature(task.run)

    def refuse(self, error: RejectedError, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:  # noqa: ANN401 - what a step answers
        """Answer a call that is not made, because of *error*.

        Raises:
            RejectedError: *error*, as there are no fallbacks.
            AllFallbacksFailedError: None of them had an answer.
        """
        if not self.fallbacks:
            raise error
        stored = self._stored(self._task.run, args, kwargs)
        return self._degrade(error, self._call(args, kwargs, stored))

    def _stored(self, _: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        if not self._remember_seconds:
            return ""
        try:
            bound = self._signature.bind(*args, **kwargs)
        except TypeError:  # the call itself says so better
            return self._answers.key_of_call(self.name, args, kwargs)
        return self._answers.key_of_call(self.name, bound.args, bound.kwargs)

    def _guarded(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:  # noqa: ANN401 - what the function returns
        try:
            return super()._guarded(function, args, kwargs)
        except AttemptTimeoutError as error:
            # The breaker has counted it: only now may it become a neutral Retry.
            _retry_if_declared(self._task, error)
            raise
        except Exception as error:
            if getattr(self._task, "_kept", False) and not self.fallbacks:
                self._reports.why(error)  # it runs again in silence, for hours maybe
            raise

    def _mark(
        self,
        error: Exception,
        function: Callable[..., Any],  # noqa: ARG002 - it takes any arguments
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        super()._mark(error, self._task.run, args, kwargs)


def _retry_if_declared(task: Task[Any, Any], error: AttemptTimeoutError) -> None:
    """Do for a timeout what Celery's `autoretry_for` does for what the body raises.

    Celery wraps the body itself, which a timeout cuts from outside.

    Raises:
        Retry: The task will run again.
        AttemptTimeoutError: Its retries are used up.
    """
    wanted = tuple(getattr(task, "autoretry_for", ()))
    unwanted = tuple(getattr(task, "dont_autoretry_for", ()))
    if not isinstance(error, wanted) or isinstance(error, unwanted):
        return
    options: dict[str, Any] = dict(getattr(task, "retry_kwargs", {}))
    backoff = float(getattr(task, "retry_backoff", False))
    if backoff:
        options["countdown"] = get_exponential_backoff_interval(
            factor=int(max(1.0, backoff)),
            retries=task.request.retries,
            maximum=int(getattr(task, "retry_backoff_max", 600)),
            full_jitter=getattr(task, "retry_jitter", True),
        )
    raise task.retry(exc=error, **options)
