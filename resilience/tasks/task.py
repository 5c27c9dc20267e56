"""The task class whose calls go through the pipeline."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from celery import Celery, Task
from celery.app.task import Context
from celery.exceptions import Ignore, Reject, Retry

from resilience.budget import Cut, call_within
from resilience.bulkhead import NORMAL, Lane
from resilience.clock import SystemClock
from resilience.errors import BulkheadFullError, FeatureShedError
from resilience.fallback import Entry
from resilience.outcome import Outcome
from resilience.tasks.admission import going_on, with_lane
from resilience.tasks.attempt import TaskPipeline
from resilience.tasks.autoretry import retry_if_declared
from resilience.tasks.carried import carry, values_of, worst
from resilience.tasks.deadline import (
    INHERIT,
    announce_if_exceeded,
    budget_of,
    cut_short,
    hop_of,
    refuse_late_retry,
    with_budget,
)
from resilience.tasks.declaration import DataConsistency, check_calls, check_declaration
from resilience.tasks.ending import guard, report_end
from resilience.tasks.envelope import Deadline, deadline_of, level_of, repeated, slot_of
from resilience.tasks.holding import pipeline_of
from resilience.tasks.marks import marks_of
from resilience.tasks.models import check_models
from resilience.tasks.once import call_once
from resilience.tasks.positions import with_reads
from resilience.tasks.postponing import begin_reading, publish_postponed
from resilience.tasks.refusal import Refusal, refusal_of, take_refusal
from resilience.tasks.refusing import end_here, is_awaited
from resilience.tasks.replacing import Replaced, hand_over, with_body
from resilience.tasks.resilience import Resilience
from resilience.tasks.sending import by_name

WAIT_SECONDS = 5.0
POSITIONAL = ("task_id", "producer", "link", "link_error", "shadow")  # in Celery's `apply_async`


class ResilientTask(Task[Any, Any]):
    """A Celery task whose body calls one dependency.

    Use it as the `base` of a decorated task or subclass it. In all else it is a Celery task;
    without `dependency` it is nothing but that, and can still be part of a fan-out.

    A task that declares fallbacks returns an `Outcome`, always. One that declares none returns its
    plain value and raises. An `Outcome` handed to it as an argument (by the task before it in a
    chain) is unwrapped for the body; the task then returns an `Outcome` whose level is at
    least that one's.

    Attributes:
        dependency: Name of the dependency that the body calls; the task goes to its queue.
        fallbacks: Steps that answer when the body cannot, in non-decreasing level.
        idempotency_key: Runs once for each value of it, such as `"order:{order_id}:mail"`: names of
            arguments in braces. A concurrent job with the same value waits for its result, as long
            as the dependency's timeout; a later one gets the recorded result. Needs the ledger.
        idempotency_seconds: How long the result is recorded.
        bugs: Exceptions that are raised past every fallback, as no answer of the dependency can
            cause them; None: the dependency's. See docs/errors.md.
        feature: Name of the feature that the task is part of; while it is shed the fallbacks answer
            at the feature's level, and without any the job ends in `FeatureShedError`.
        lane: `critical`, `normal` or `sheddable`: which jobs of the dependency are served first,
            and which are refused first when too many wait; see docs/admission.md.
        data_consistency: Where the job reads: `always` the primary, `sticky` or `delayed` a replica
            that has replayed what its publisher saw, else the primary; see docs/consistency.md.

    Raises:
        ConfigurationError: When the class or the task is made: *fallbacks* are no chain, stand
            without a dependency (unless the class is `abstract` itself), hold a value that
            cannot be sent or a function that cannot be called in the body's place; a name is
            misspelt; a `__call__` does not call `super()`; or the dependency is unknown.
    """

    abstract = True
    Request = "resilience.worker.request:ResilientRequest"
    Strategy = "resilience.worker.strategy:drop_late"
    throws = (FeatureShedError,)  # a line of the log and no traceback: somebody wanted that

    dependency: ClassVar[str | None] = None
    fallbacks: ClassVar[Sequence[Entry]] = ()
    idempotency_key: ClassVar[str | None] = None
    idempotency_seconds: ClassVar[float] = 86_400.0
    bugs: ClassVar[tuple[type[Exception], ...] | None] = None
    feature: ClassVar[str | None] = None
    lane: ClassVar[Lane] = NORMAL
    data_consistency: ClassVar[DataConsistency | None] = None

    _kept: ClassVar[bool] = False
    _pipeline: TaskPipeline | None = None

    def __init_subclass__(cls, **kwargs: Any) -> None:  # noqa: ANN401 - whatever the class statement says
        super().__init_subclass__(**kwargs)
        cls.fallbacks = check_declaration(cls, within=ResilientTask)

    @classmethod
    def on_bound(cls, app: Celery[Any]) -> None:
        """Check the task against the app's dependencies, if those are declared already."""
        if (resilience := getattr(app, "resilience", None)) is not None:
            resilience.check_task(cls)

    @classmethod
    def annotate(cls) -> None:
        """Let the app's `task_annotations` change the class, as Celery does, but not its promises.

        Raises:
            ConfigurationError: A `__call__` among them passes by the pipeline.
        """
        super().annotate()
        check_calls(cls, within=ResilientTask)
        guard(cls)

    @property
    def resilience(self) -> Resilience:
        """What the task's app declared.

        Raises:
            ConfigurationError: The app never called `Resilience(app, …)`.
        """
        return Resilience.of(self.app)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - what the body returns
        """Run the body through the pipeline."""
        request = self._entered()
        if request is None:
            return self._run(args, kwargs, None)
        begin_reading(self, request)
        deadline = deadline_of(request)
        try:
            if deadline is None:
                return self._run(args, kwargs, request)
            return self._run_until(deadline, request, args, kwargs)
        except Cut as stored:  # by the body of an earlier job; no limit of this one is its own
            raise stored.error() from stored

    def apply_async(
        self,
        args: Any = None,  # noqa: ANN401 - as Celery's
        kwargs: Any = None,  # noqa: ANN401 - as Celery's
        *positional: Any,  # noqa: ANN401 - as Celery's
        budget: float | None = INHERIT,
        lane: Lane | None = None,
        **options: Any,  # noqa: ANN401 - as Celery's
    ) -> Any:  # noqa: ANN401 - as Celery's
        """Publish the task, as Celery does, with a budget of time, if its bulkhead has room.

        If not, the fallback chain answers here and now: the result is ready, and holds the
        `Outcome`.

        Args:
            args: As Celery's.
            kwargs: As Celery's.
            *positional: As Celery's.
            budget: Seconds from now until this job and all that it publishes must be done. It
                never reaches beyond the budget of the job, or of the block (`TimeoutBudget`), that
                publishes; by default it is that one. None: none, not even that; a signature says so
                with `set(budget=None)`, as its `apply_async` dismisses options that are None.
            lane: By default the task's. A `queue` or `exchange` that is given wins.
            **options: As Celery's.

        Raises:
            BulkheadFullError: Too many jobs of the dependency wait, and there is no fallback. A
                member of a group or chord fails with it instead.
            ConfigurationError: *budget* is no time; *lane* is none; or the task has a dependency or
                a budget, and the app never called `Resilience(app, …)`.
        """
        resilience: Resilience | None = getattr(self.app, "resilience", None)
        if resilience is None and (self.dependency is not None or budget not in {None, INHERIT}):
            resilience = self.resilience
        if resilience is not None:
            name = str(self.name)
            headers = with_lane(options.get("headers"), lane, name)
            options["headers"] = with_budget(resilience, headers, budget, options.get("task_id"))
            if not self.app.conf.task_always_eager:
                full = resilience.admission.ask(name, self.dependency, self.lane, options)
                if full is not None:
                    options = by_name(POSITIONAL, positional, options)
                    return self._end_refused(full, args or (), kwargs or {}, options)
        return super().apply_async(args, kwargs, *positional, **options)

    def _end_refused(
        self,
        error: BulkheadFullError,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        options: Mapping[str, Any],
    ) -> Any:  # noqa: ANN401 - a result
        """End a job that there is no room for.

        Raises:
            BulkheadFullError: Nothing can answer in its place, and nobody hears that it failed.
        """
        if not self._kept and (self.fallbacks or is_awaited(self, options)):
            return end_here(self, error, args, kwargs, options)
        raise error

    def retry(
        self,
        args: Any = None,  # noqa: ANN401 - as Celery's
        kwargs: Any = None,  # noqa: ANN401 - as Celery's
        exc: Any = None,  # noqa: ANN401 - as Celery's
        throw: bool = True,  # noqa: FBT001, FBT002 - as Celery's
        eta: Any = None,  # noqa: ANN401 - as Celery's
        countdown: Any = None,  # noqa: ANN401 - as Celery's
        max_retries: int | None = None,
        **options: Any,  # noqa: ANN401 - as Celery's
    ) -> Any:  # noqa: ANN401 - as Celery's
        """Run the task again later, as Celery does, if that is within its budget.

        Raises:
            Retry: It will run again.
            BudgetExceededError: It would begin too late, and no *exc* was given to raise instead.
        """
        deadline = deadline_of(self.request)
        if deadline is not None:
            delay = self.default_retry_delay if countdown is None else countdown
            refuse_late_retry(self.resilience, self.request, deadline, delay, eta, exc)
        with going_on():
            return super().retry(args, kwargs, exc, throw, eta, countdown, max_retries, **options)

    def postpone(self, request: Context, seconds: float) -> None:
        """Publish the job with *request* once more, to run in *seconds*; no attempt is spent.

        Raises:
            Retry: It is published.
            Exception: The broker's: it is not.
        """
        publish_postponed(self, request, seconds)

    def signature_from_request(
        self,
        request: Context | None = None,
        *positional: Any,  # noqa: ANN401 - as Celery's
        **options: Any,  # noqa: ANN401 - as Celery's
    ) -> Any:  # noqa: ANN401 - as Celery's
        """Return the signature of the job's next attempt, as Celery does, with our headers."""
        request = self.request if request is None else request
        options["headers"] = repeated(request, options.get("headers"))
        return super().signature_from_request(request, *positional, **options)

    def replace(self, sig: Any) -> Any:  # noqa: ANN401 - as Celery's
        """Replace this task; what replaces it reports to the same fan-out.

        Raises:
            ConfigurationError: The task is a part, and the one that would answer in its place is no
                `ResilientTask`.
        """
        if (slot := slot_of(self.request)) is not None:
            sig = with_body(sig)
            hand_over(sig, slot, ResilientTask)
        try:
            with going_on():
                return super().replace(sig)
        except Ignore as done:
            raise Replaced(*done.args) from None

    def _settle(self, request: Context, call: Callable[[], Any], *, ends: bool) -> Any:  # noqa: ANN401 - what *call* returns
        """Return `call()`, and let everybody concerned know how the job of *request* ended."""
        slot = slot_of(request)
        return call() if slot is None else report_end(self.resilience, slot, call, ends=ends)

    def _entered(self) -> Context | None:
        """Return the request that is run; None for a body that calls its own task as a function."""
        request: Context | None = self.request_stack.top
        if request is None or request.called_directly or "entered" in marks_of(request):
            return None
        marks_of(request)["entered"] = SystemClock.monotonic()
        return request

    def _run_until(
        self, deadline: Deadline, request: Context, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:  # noqa: ANN401 - what the body returns
        """Run under what is left of the job's budget, and say where the time went."""
        resilience, name = self.resilience, str(self.name)
        began = resilience.fleet_time()
        marks_of(request)["started"] = began
        try:
            if refusal_of(request) is None:
                deadline.must_be_ahead(name, began)  # it may have waited in the pool's pipe
            with budget_of(resilience, deadline, began) as budget:
                if self.dependency is not None:  # its pipeline cuts
                    value = self._run(args, kwargs, request)
                else:
                    late = functools.partial(cut_short, name, budget)
                    run = (args, kwargs, request)
                    value = call_within(budget.remaining(), late, self._run, run, None, self)
        except (Ignore, Reject, Retry):
            raise
        except Exception:
            announce_if_exceeded(resilience, name, request, deadline)
            raise
        if isinstance(value, Outcome):
            hop = hop_of(request, deadline, resilience.fleet_time())
            value = dataclasses.replace(value, hops=(*deadline.hops, hop))
        return value

    def _run(self, args: tuple[Any, ...], kwargs: dict[str, Any], request: Context | None) -> Any:  # noqa: ANN401 - what the body returns
        degraded = worst([*args, *kwargs.values()])
        if degraded is not None:  # given eagerly, or by an app that was never adopted
            args, kwargs = values_of(args, kwargs)
        if (given := level_of(request)) is not None:
            degraded = worst([given, degraded])
        refused = take_refusal(request)
        try:
            value = self._answered(refused, args, kwargs)
        except Exception as error:
            if not self._kept and (refused is None or refused.may_retry):
                retry_if_declared(self, error)
            raise
        value = value if degraded is None else with_reads(carry(degraded, value))
        if refused is not None:
            refused.answer = value
        return value

    def _answered(self, refused: Refusal | None, args: Any, kwargs: Any) -> Any:  # noqa: ANN401 - any
        check_models(self, args, kwargs)
        if refused is not None:
            if self.dependency is None:
                raise refused.error
            return self._guarding(self.dependency).refuse(refused, args, kwargs)
        if self.idempotency_key is None or self.app.conf.task_always_eager:
            return self._call(args, kwargs)
        return call_once(self, self._call, args, kwargs, wait_seconds=self._wait_seconds())

    def _call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:  # noqa: ANN401
        if self.dependency is None:
            return super().__call__(*args, **kwargs)
        return self._guarding(self.dependency).call(super().__call__, *args, **kwargs)

    def _guarding(self, dependency: str) -> TaskPipeline:
        if self._pipeline is None:
            self._pipeline = pipeline_of(self, dependency, self.fallbacks, self.resilience)
        return self._pipeline

    def _wait_seconds(self) -> float:
        """Return how long to wait for another one that runs under the same idempotency key."""
        if self.dependency is None:
            return WAIT_SECONDS
        known = self.resilience.dependencies.require(self.dependency, where=f"task {self.name}")
        return WAIT_SECONDS if known.timeout is None else known.timeout
