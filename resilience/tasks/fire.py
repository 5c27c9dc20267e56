"""The task class whose jobs the ledger keeps when the broker or the dependency fails."""

import threading
from collections.abc import Mapping
from random import SystemRandom
from typing import Any, ClassVar, NoReturn

import redis
from celery.app.task import Context
from celery.exceptions import Ignore, Reject, Retry, TaskRevokedError, WorkerLostError
from celery.result import AsyncResult
from celery.utils import uuid
from sqlalchemy import Connection
from sqlalchemy.orm import Session

from resilience.clock import SystemClock
from resilience.errors import (
    BulkheadFullError,
    CircuitOpenError,
    ConfigurationError,
    LedgerUnavailableError,
    SchemaError,
    UnkeepableError,
    text_of,
)
from resilience.events import JobBuried, JobKept, JobParked, JobUnkept
from resilience.ledger import Job
from resilience.retry import Dead, RetryPolicy
from resilience.tasks.admission import with_lane
from resilience.tasks.again import drop_frames, end_kept
from resilience.tasks.deadline import deadline_of, with_budget
from resilience.tasks.kept import JOB_HEADER, delay_of, job_of, ledger_header, options_of
from resilience.tasks.names import check_names
from resilience.tasks.publishing import PUBLISH_ERRORS, PublishTimeoutError, publish_within
from resilience.tasks.task import ResilientTask

PUBLISH_SECONDS_MAX = 0.8
"""`fire` is back within a second; the rest of it is for the outbox and what a first job imports."""
AVOID_SECONDS = 1.0
"""A broker that did not take a job is not asked again for so long."""
UNKEPT_SECONDS = 1.0
"""A job that cannot be kept goes back to the broker, but not faster than this."""
REFUSED_SECONDS = 1.0
"""Within so long a job that an open circuit refused is due again."""
POISON_LOST = 3
"""A job whose process was lost so often is a dead letter."""
LEDGER_ERRORS = (LedgerUnavailableError, SchemaError)
BROKER_ERRORS = (*PUBLISH_ERRORS, redis.RedisError, RuntimeError)
_random = SystemRandom()  # the same in no two children


class FireAndForgetTask(ResilientTask):
    """A resilient task that nobody waits for, and that runs to its end whatever fails meanwhile.

    Publishing it always succeeds within a second: when the broker does not take it, or the bulkhead
    is full, the ledger's outbox keeps it. When it fails it is kept there, too, and runs again as
    the dependency's `retry` policy says; in the end it is done or a dead letter. Its results are
    not stored.

    It runs at least once; effectively once with an `idempotency_key`.

    Attributes:
        retry_policy: By default the dependency's.
    """

    abstract = True
    ignore_result = True
    acks_late = True

    retry_policy: ClassVar[RetryPolicy | None] = None
    _kept = True
    _avoid_until: ClassVar[dict[int, float]] = {}

    def fire(self, *args: Any, **kwargs: Any) -> AsyncResult[Any]:  # noqa: ANN401 - as the body's
        """Publish the job; as `delay`.

        Raises:
            LedgerUnavailableError: Neither the broker nor the ledger takes it: it is not accepted.
        """
        result: AsyncResult[Any] = self.apply_async(args, kwargs)
        return result

    def apply_async(
        self,
        args: Any = None,  # noqa: ANN401 - as Celery's
        kwargs: Any = None,  # noqa: ANN401 - as Celery's
        *positional: Any,  # noqa: ANN401 - as Celery's
        budget: float | None = None,
        **options: Any,  # noqa: ANN401 - as Celery's
    ) -> Any:  # noqa: ANN401 - as Celery's
        """Publish the job, or keep it in the outbox.

        A job with `countdown` or `eta` is kept in the ledger until then, not in a worker's memory.

        Args:
            args: As Celery's.
            kwargs: As Celery's.
            *positional: As Celery's.
            budget: None by default: it is not dropped because who fired it has no time left.
            **options: As Celery's.

        Raises:
            LedgerUnavailableError: Neither the broker nor the ledger takes it: it is not accepted.
            ConfigurationError: It has no dependency, too long a name, or an app never adopted.
        """
        if self.app.conf.task_always_eager:
            return super().apply_async(args, kwargs, *positional, budget=budget, **options)
        if positional:
            options |= self._named(positional)
        args, kwargs = tuple(args or ()), dict(kwargs or {})
        task_id = options["task_id"] = options.get("task_id") or uuid()
        options["headers"] = self._born(options)
        delay = delay_of(self.app, options)
        error = None if delay is not None else self._publish(args, kwargs, budget, options)
        if delay is not None or error is not None:
            options["headers"] = with_budget(self.resilience, options["headers"], budget)
            self._keep(args, kwargs, options, delay_seconds=delay, error=error)
        return self.AsyncResult(task_id)

    def publish_with(
        self,
        session: Session | Connection,
        args: Any = None,  # noqa: ANN401 - as `apply_async`
        kwargs: Any = None,  # noqa: ANN401 - as `apply_async`
        **options: Any,  # noqa: ANN401 - as `apply_async`
    ) -> AsyncResult[Any]:
        """Publish the job if, and only if, the caller's transaction is committed.

        Args:
            session: On the ledger's own database, in a transaction.
            args: As of `apply_async`.
            kwargs: As of `apply_async`.
            **options: As of `apply_async`; without `countdown` and `eta`.

        Raises:
            LedgerUnavailableError: The database lacks the ledger's tables.
        """
        task_id = options["task_id"] = options.get("task_id") or uuid()
        options["headers"] = self._born(options)
        job = self._job(tuple(args or ()), dict(kwargs or {}), options)
        self.resilience.ledger.add_in(session, job)
        return self.AsyncResult(task_id)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - what the body returns
        """Run the body; what fails is kept until it is due again."""
        request: Context | None = self.request_stack.top
        if request is None or request.called_directly or request.get("entered"):
            return super().__call__(*args, **kwargs)
        known = ledger_header(request.headers)
        if known.get("dispatches") and not self._still_open(str(request.id)):
            msg = "another copy of the job has ended, or will"
            raise Ignore(msg)
        try:
            value = super().__call__(*args, **kwargs)
        except Retry:
            raise
        except (Ignore, Reject) as error:
            if known.get("dispatches") and not getattr(error, "requeue", False):
                self._forget(str(request.id))
            raise
        except Exception as error:  # noqa: BLE001 - the policy decides
            self._failed(request, error)
        if known.get("dispatches"):
            self._forget(str(request.id))
        return value

    @property
    def store_errors_even_if_ignored(self) -> bool:  # type: ignore[override] # Celery only reads it
        """What the setting says. Celery asks after it caught an error, before it copies frames."""
        drop_frames()
        return bool(self.app.conf.task_store_errors_even_if_ignored)

    def _wait_seconds(self) -> float:
        return 0.0  # it is kept, and comes back

    @property
    def policy(self) -> RetryPolicy:
        """What decides when a failed job runs again.

        Raises:
            ConfigurationError: The task names no dependency.
        """
        return self.retry_policy or self._catalogued.retry

    @property
    def _catalogued(self) -> Any:  # noqa: ANN401 - a Dependency
        where = f"task {self.name}"
        if self.dependency is None:
            msg = f"{where} names no dependency; its retry queue is that of one"
            raise ConfigurationError(msg)
        return self.resilience.dependencies.require(self.dependency, where=where)

    def _born(self, options: dict[str, Any]) -> dict[str, Any]:
        check_names(self.resilience, options["task_id"], self.name, options.get("queue"))
        headers = with_lane(options.get("headers"), options.pop("lane", None), str(self.name))
        headers.setdefault(JOB_HEADER, {"born": self.resilience.fleet_time()})
        return headers

    def _publish(
        self,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        budget: float | None,
        options: Mapping[str, Any],
    ) -> BaseException | None:
        """Publish the job within the time there is; return why the broker did not take it."""
        now = SystemClock.monotonic()
        app = id(self.app)
        if now < self._avoid_until.get(app, 0.0):
            return PublishTimeoutError("the broker did not take a job a moment ago")
        send = super().apply_async

        def publish(_: threading.Event) -> None:
            send(args, kwargs, budget=budget, retry=False, **options)

        seconds = min(self.resilience.settings.publish_timeout_seconds, PUBLISH_SECONDS_MAX)
        try:
            if publish_within(seconds, publish):
                return None
            late = f"the broker did not answer in {seconds:g} s"
            error: BaseException = PublishTimeoutError(late)
        except BulkheadFullError as full:
            return full
        except BROKER_ERRORS as refused:
            error = refused
        self._avoid_until[app] = SystemClock.monotonic() + AVOID_SECONDS
        return error

    def _job(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], options: Mapping[str, Any]
    ) -> Job:
        route = self.app.amqp.router.route(dict(options), self.name, args, kwargs, type(self))
        queue = getattr(route.get("queue"), "name", None) or self._catalogued.queue
        return job_of(
            self,
            args,
            kwargs,
            {**options, "ignore_result": True},
            queue=queue,
            ledger=options["headers"][JOB_HEADER],
            age_seconds=0.0,
        )

    def _keep(
        self,
        args: Any,  # noqa: ANN401
        kwargs: Any,  # noqa: ANN401
        options: Mapping[str, Any],
        *,
        delay_seconds: float | None = None,
        error: BaseException | None = None,
    ) -> None:
        job = self._job(args, kwargs, options)
        try:
            self.resilience.ledger.add([job], delay_seconds=delay_seconds)
        except LedgerUnavailableError as lost:
            raise lost from error
        if error is not None:
            kept = JobKept(task=job.task, id=job.id, queue=job.queue, error=text_of(error))
            self.resilience.announce(kept)

    def _failed(self, request: Context, error: Exception) -> NoReturn:
        """End the run of a job that failed, once it is kept.

        Raises:
            Retry: It will run again.
            Reject: The ledger does not keep it: the broker does.
            Exception: *error*: it will not run again; it is a dead letter.
        """
        try:
            delay = self.keep_failed(request, error)
        except Exception as lost:  # noqa: BLE001 - a missing driver, whatever: it is not kept
            self._say_unkept(request.id, lost)
            if not isinstance(lost, UnkeepableError):
                threading.Event().wait(UNKEPT_SECONDS)
                raise Reject(text_of(lost), requeue=True) from error
            delay = None
        if delay is None:
            raise error
        end_kept(error, delay)

    def keep_failed(self, request: Context, error: BaseException) -> float | None:
        """Keep a job that failed until it is due again, or for good.

        Called where it ran, or in the worker's main process if that is gone.

        Returns:
            Seconds until it is due; None: it is a dead letter.

        Raises:
            LedgerUnavailableError: It is not kept; or SchemaError.
        """
        resilience, known = self.resilience, ledger_header(request.headers)
        attempts = int(known.get("attempts", 0))
        if isinstance(error, WorkerLostError):
            known["lost"] = known.get("lost", 0) + 1
        born = known.get("born")
        age = 0.0 if born is None else max(0.0, resilience.fleet_time() - born)
        decision = self.policy.decide(error, attempt=attempts + 1, age_seconds=age, random=_random)
        queue = self._catalogued.retry_queue
        job = job_of(
            self,
            tuple(request.args or ()),
            dict(request.kwargs or {}),
            options_of(self, request),
            queue=queue,
            ledger=known,
            age_seconds=age,
        )
        said = {"task": job.task, "id": job.id, "dependency": job.dependency}
        said["error"] = text_of(error)
        deadline = deadline_of(request.headers)
        if known.get("lost", 0) >= POISON_LOST:
            decision = Dead("poison")
        elif isinstance(error, TaskRevokedError) or (
            deadline is not None and deadline.left(resilience.fleet_time()) <= 0
        ):
            decision = Dead("too_old")
        if isinstance(decision, Dead):
            if resilience.ledger.bury(job, reason=decision.reason, error=error):
                buried = JobBuried(reason=decision.reason, attempts=attempts + 1, **said)
                resilience.announce(buried)
            return None
        seconds, spent = decision.delay_seconds, decision.spent
        if isinstance(error, CircuitOpenError):
            # The relay waits until the circuit closes, which may be sooner than it says.
            seconds = _random.uniform(0.0, REFUSED_SECONDS)
        if resilience.ledger.park(job, delay_seconds=seconds, error=error if spent else None):
            resilience.announce(JobParked(seconds=seconds, attempts=attempts + spent, **said))
        return seconds

    def _still_open(self, task_id: str) -> bool:
        """Begin the lease anew; tell if the job is to be done: another copy may have been first."""
        try:
            seconds = self.resilience.settings.ledger_lease_seconds
            return self.resilience.ledger.extend([task_id], lease_seconds=seconds) > 0
        except LEDGER_ERRORS:
            return True  # at worst it runs once more

    def _forget(self, task_id: str) -> None:
        """Tell the ledger that the job is done; if it cannot be told the job runs once more."""
        try:
            self.resilience.ledger.finish([task_id])
        except LEDGER_ERRORS as lost:
            self._say_unkept(task_id, lost)

    def _say_unkept(self, task_id: object, lost: BaseException) -> None:
        event = JobUnkept(task=str(self.name), id=str(task_id), error=text_of(lost))
        self.resilience.announce(event)
