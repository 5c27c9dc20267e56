"""What a call through a pipeline takes from the task that makes it."""

import inspect
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from celery import Task
from celery.exceptions import Retry

from resilience.budget.jobs import current_job
from resilience.errors import AttemptTimeoutError
from resilience.fallback import Call, Chain, Progress, Step
from resilience.outcome import Outcome
from resilience.pipeline import Pipeline
from resilience.tasks.autoretry import retry_if_declared
from resilience.tasks.carried import noting
from resilience.tasks.drilling import drill_at_end_of_job
from resilience.tasks.models import with_models
from resilience.tasks.neutral import NEUTRAL
from resilience.tasks.positions import with_reads
from resilience.tasks.refusal import Refusal
from resilience.tasks.resilience import Resilience


class TaskPipeline(Pipeline):
    """A pipeline around the body of one task."""

    def __init__(
        self,
        task: Task[Any, Any],
        dependency: str,
        fallbacks: Chain,
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
            # A kept job whose feature is shed is only postponed: a trial would measure nothing.
            gate=resilience.gate(
                getattr(task, "feature", None),
                where=f"task {name}",
                trials=not getattr(task, "_kept", False),
            ),
            fallbacks=with_models(task, fallbacks),
            neutral=NEUTRAL,
            bugs=getattr(task, "bugs", None),
            listeners=resilience.listeners,
        )
        drill_at_end_of_job(self)
        if resilience.injector is not None:
            resilience.injector.wrap(self)
        self._task = self._owner = task
        self._autoretry_for = tuple(getattr(task, "autoretry_for", ()))
        self._signature = inspect.signature(task.run)

    def refuse(self, refusal: Refusal, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:  # noqa: ANN401 - what a step answers
        """Answer a job whose body does not run, or was given up, because of *refusal*.

        Raises:
            Exception: Its error, as there are no fallbacks; or Retry.
            AllFallbacksFailedError: None of them had an answer.
        """
        error = refusal.error
        if isinstance(error, AttemptTimeoutError) and not refusal.tried:
            retry_if_declared(self._task, error)
        if not self.fallbacks:
            raise error
        stored = self._stored(self._task.run, args, kwargs)
        return self.degrade(error, self._call(args, kwargs, stored), refusal.tried)

    def _stored(self, _: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        if not self.fallbacks.remember_seconds:
            return ""
        dump = getattr(self._task, "_dump_pydantic_arguments", None)
        if dump is not None:  # as a worker gets them, also where a task is applied locally
            args, kwargs = dump(args, kwargs)
        if kwargs:  # arguments by position are bound already
            with suppress(TypeError):  # the call itself says so better
                bound = self._signature.bind(*args, **kwargs)
                args, kwargs = bound.args, bound.kwargs
        return self._answers.key_of_call(self.name, args, kwargs)

    def _guarded(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:  # noqa: ANN401 - what the function returns
        retried: Retry | None = None

        def body(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as the function's
            nonlocal retried
            try:
                return function(*args, **kwargs)
            except Retry as retry:
                if not isinstance(retry.exc, self._autoretry_for):
                    raise
                # What Celery made of a failure: the breaker is to count it.
                retried = retry
                raise retry.exc from None

        guarded, run = super()._guarded, body if self._autoretry_for else function
        try:
            if self.fallbacks:
                return with_reads(noting(guarded, run, args, kwargs))
            return guarded(run, args, kwargs)
        except Exception as error:
            if retried is not None:
                raise retried from None
            if isinstance(error, AttemptTimeoutError):
                retry_if_declared(self._task, error)
            elif getattr(self._task, "_kept", False) and not self.fallbacks:
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

    def _ask(self, step: Step, call: Call, progress: Progress) -> Outcome[Any]:
        job = current_job()
        if job is None or not job.takes(self._task):
            return super()._ask(step, call, progress)

        def degrading(error: BaseException) -> Refusal:
            return Refusal(progress.error, progress.past(error))

        job.degrading = degrading
        try:
            return super()._ask(step, call, progress)
        finally:
            job.degrading = None
