"""The task class whose jobs the ledger's outbox keeps when the broker does not take them."""

import functools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from celery.result import AsyncResult
from celery.utils import uuid

from resilience.clock import SystemClock
from resilience.errors import (
    BulkheadFullError,
    ConfigurationError,
    LedgerUnavailableError,
    text_of,
)
from resilience.events import JobKept
from resilience.ledger import Job
from resilience.tasks.admission import with_lane
from resilience.tasks.captured import CONNECTIONS, capture
from resilience.tasks.deadline import with_budget
from resilience.tasks.envelope import JOB_HEADER
from resilience.tasks.kept import delay_of, keep_message, serializer_of
from resilience.tasks.ledger_check import LedgerCheck
from resilience.tasks.names import check_names
from resilience.tasks.publishing import BROKER_ERRORS, PublishTimeoutError, publish_within
from resilience.tasks.sending import by_name
from resilience.tasks.serialization import must_keep, why_refused
from resilience.tasks.task import POSITIONAL, ResilientTask

if TYPE_CHECKING:
    from sqlalchemy import Connection
    from sqlalchemy.orm import Session

PUBLISH_SECONDS_MAX = 0.8
"""`fire` is back within a second; the rest of it is for the outbox and what a first job imports."""
AVOID_SECONDS = 1.0
"""A broker that did not take a job is not asked again for so long."""


class OutboxTask(ResilientTask):
    """A resilient task whose jobs are published by the ledger's relay if nobody else could.

    `FireAndForgetTask` is the class to use.
    """

    abstract = True

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
            ConfigurationError: It has no dependency, too long a name, a serializer that workers
                refuse, or an app never adopted.
            kombu.exceptions.EncodeError: The ledger cannot keep its arguments.
        """
        if self.app.conf.task_always_eager:
            return super().apply_async(args, kwargs, *positional, budget=budget, **options)
        options = by_name(POSITIONAL, positional, options)
        args, kwargs = tuple(args or ()), dict(kwargs or {})
        options["task_id"] = options.get("task_id") or uuid()
        # Celery's default is by thread, and another one may publish.
        options["reply_to"] = options.get("reply_to") or self.app.thread_oid
        options["headers"] = self._born(args, kwargs, options)
        delay = delay_of(self.app, options)
        error = None if delay is not None else self._publish(args, kwargs, budget, options)
        if delay is not None or error is not None:
            options["headers"] = with_budget(self.resilience, options["headers"], budget)
            self._keep(args, kwargs, options, delay_seconds=delay, error=error)
        return self._result_of(options)

    def publish_with(
        self,
        session: "Session | Connection",
        args: Any = None,  # noqa: ANN401 - as `apply_async`
        kwargs: Any = None,  # noqa: ANN401 - as `apply_async`
        **options: Any,  # noqa: ANN401 - as `apply_async`
    ) -> AsyncResult[Any]:
        """Publish the job if, and only if, the caller's transaction is committed.

        With `task_always_eager` the job runs at once, and the session is not used.

        Args:
            session: On the ledger's own database, in a transaction.
            args: As of `apply_async`.
            kwargs: As of `apply_async`.
            **options: As of `apply_async`.

        Raises:
            LedgerUnavailableError: The database lacks the ledger's tables.
        """
        if self.app.conf.task_always_eager:
            return self.apply_async(args, kwargs, **options)  # type: ignore[no-any-return]
        options["task_id"] = options.get("task_id") or uuid()
        args, kwargs = tuple(args or ()), dict(kwargs or {})
        options["headers"] = self._born(args, kwargs, options)
        delay = delay_of(self.app, options)
        job = self._job(args, kwargs, options)
        self.resilience.ledger.add_in(session, job, delay_seconds=delay)
        return self._result_of(options)

    @property
    def _catalogued(self) -> Any:  # noqa: ANN401 - a Dependency
        where = f"task {self.name}"
        if self.dependency is None:
            msg = f"{where} names no dependency; its retry queue is that of one"
            raise ConfigurationError(msg)
        return self.resilience.dependencies.require(self.dependency, where=where)

    def _born(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], options: dict[str, Any]
    ) -> dict[str, Any]:
        """Return the headers of a job that can be kept, whether it is to be or not."""
        _ = self._catalogued  # or the first failure could be kept nowhere
        check_names(self.resilience, options["task_id"], self.name, options.get("queue"))
        asked = options.get("serializer")
        serializer = asked or serializer_of(self, self.app)
        refused = why_refused(self.app, serializer)
        if refused is not None:
            msg = f"task {self.name}: {refused}"
            raise ConfigurationError(msg)
        dump = getattr(self, "_dump_pydantic_arguments", None)
        if dump is not None:
            args, kwargs = dump(args, kwargs)
        must_keep(args, kwargs, serializer=serializer, where=f"task {self.name}")
        headers = with_lane(options.get("headers"), options.pop("lane", None), str(self.name))
        born = {"born": self.resilience.fleet_time(), **({"serializer": asked} if asked else {})}
        headers.setdefault(JOB_HEADER, born)
        return headers

    def _publish(
        self,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        budget: float | None,
        options: Mapping[str, Any],
    ) -> BaseException | None:
        """Publish the job within the time there is; return why the broker did not take it."""
        send = functools.partial(super().apply_async, args, kwargs, budget=budget)
        if any(options.get(name) is not None for name in CONNECTIONS):
            # Here: nobody else may use a connection of the caller's while the caller has it.
            return self._attempt(functools.partial(send, **options))
        now = SystemClock.monotonic()
        app = id(self.app)
        if now < self._avoid_until.get(app, 0.0):
            return PublishTimeoutError("the broker did not take a job a moment ago")
        seconds = min(self.resilience.settings.publish_timeout_seconds, PUBLISH_SECONDS_MAX)
        late = PublishTimeoutError(f"the broker did not answer in {seconds:g} s")

        def publish() -> None:
            once = {**options, "retry": False}  # the outbox is the second attempt
            if not publish_within(seconds, lambda _: send(**once)):
                raise late

        error = self._attempt(publish)
        if error is not None and not isinstance(error, BulkheadFullError):
            self._avoid_until[app] = SystemClock.monotonic() + AVOID_SECONDS
        return error

    @staticmethod
    def _attempt(publish: Callable[[], object]) -> BaseException | None:
        """Call *publish*; return the error that the outbox makes good."""
        try:
            publish()
        except (BulkheadFullError, *BROKER_ERRORS) as error:
            return error
        return None

    def _result_of(self, options: Mapping[str, Any]) -> AsyncResult[Any]:
        """Return the handle on a job with these *options*, as Celery makes it."""
        result: AsyncResult[Any] = self.AsyncResult(options["task_id"])
        result.ignored = options.get("ignore_result", self.ignore_result)
        return result

    def _job(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], options: Mapping[str, Any]
    ) -> Job:
        _ = self._catalogued  # a job of no dependency has no retry queue
        message = capture(self, args, kwargs, dict(options))
        return keep_message(self, message, ledger=options["headers"][JOB_HEADER])

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
        LedgerCheck.of(self.resilience).look_after_keeping()
        if error is not None:
            kept = JobKept(task=job.task, id=job.id, queue=job.queue, error=text_of(error))
            self.resilience.announce(kept)
