"""The task class whose jobs the ledger keeps when the broker or the dependency fails."""

import functools
import threading
from collections.abc import Callable
from random import SystemRandom
from typing import Any, ClassVar, NoReturn

from celery.app.task import Context
from celery.exceptions import Ignore, Reject, Retry, TaskRevokedError, WorkerLostError
from kombu.exceptions import EncodeError

from resilience.errors import (
    CircuitOpenError,
    LedgerUnavailableError,
    SchemaError,
    UnkeepableError,
    text_of,
)
from resilience.events import JobBuried, JobParked, JobUnkept
from resilience.ledger import Job
from resilience.retry import Dead, RetryPolicy
from resilience.tasks.again import decide, drop_frames, end_kept
from resilience.tasks.envelope import deadline_of, ledger_header
from resilience.tasks.kept import give_up, job_of, options_of
from resilience.tasks.outbox import OutboxTask

UNKEPT_SECONDS = 1.0
"""A job that cannot be kept goes back to the broker, but not faster than this."""
REFUSED_SECONDS = 1.0
"""Within so long a job that an open circuit refused is due again."""
POISON_LOST = 3
"""A job whose process was lost so often is a dead letter."""
LEDGER_ERRORS = (LedgerUnavailableError, SchemaError)
_random = SystemRandom()  # the same in no two children


class FireAndForgetTask(OutboxTask):
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

    def _settle(self, request: Context, call: Callable[[], Any], *, ends: bool) -> Any:  # noqa: ANN401 - what *call* returns
        if not request.is_eager:  # who called it has its error
            call = functools.partial(self._keep_unless_done, request, call, ends=ends)
        return super()._settle(request, call, ends=ends)

    def _keep_unless_done(self, request: Context, call: Callable[[], Any], *, ends: bool) -> Any:  # noqa: ANN401 - what *call* returns
        """Return `call()`; if it fails, the job is kept until it is due again."""
        known = ledger_header(request)
        if ends and known.get("dispatches") and not self._still_open(str(request.id)):
            msg = "another copy of the job has ended, or will"
            raise Ignore(msg)
        try:
            value = call()
        except Retry:
            raise
        except (Ignore, Reject) as error:
            if known.get("dispatches") and not getattr(error, "requeue", False):
                self._forget(str(request.id))
            raise
        except Exception as error:  # noqa: BLE001 - the policy decides
            self._failed(request, error)
        if ends and known.get("dispatches"):
            self._forget(str(request.id))
        return value

    @property
    def store_errors_even_if_ignored(self) -> bool:  # type: ignore[override] # Celery only reads it
        """What the setting says. Celery asks after it caught an error, before it copies frames."""
        drop_frames()
        return bool(self.app.conf.task_store_errors_even_if_ignored)

    def postpone(self, request: Context, seconds: float) -> None:
        """Let the ledger keep the job with *request*, to run in *seconds*; no attempt is spent.

        Raises:
            Retry: It is kept.
            LedgerUnavailableError: It is not; or SchemaError.
        """
        job = self._job_of(request, ledger_header(request), 0.0)
        self.resilience.ledger.park(job, delay_seconds=seconds, error=None)
        end_kept(None, seconds)

    def _wait_seconds(self) -> float:
        return 0.0  # it is kept, and comes back

    @property
    def policy(self) -> RetryPolicy:
        """What decides when a failed job runs again.

        Raises:
            ConfigurationError: The task names no dependency.
        """
        return self.retry_policy or self._catalogued.retry

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
            self._bury_or_requeue(request, error, lost)
            delay = None
        if delay is None:
            raise error
        end_kept(error, delay)

    def _bury_or_requeue(self, request: Context, error: Exception, lost: Exception) -> None:
        """Do what is left when a failed job was not kept, because of *lost*.

        Raises:
            Reject: The ledger is away: the broker keeps the job.
        """
        if not isinstance(lost, (*LEDGER_ERRORS, UnkeepableError, EncodeError)):
            # Nobody foresaw that, and it would happen again and again: the job ends here.
            try:
                job = self._job_of(request, ledger_header(request), 0.0)
                give_up(self.resilience, job, "bug", lost)
            except Exception as again:  # noqa: BLE001 - as above
                lost = again
            else:
                return
        self._say_unkept(request.id, lost)
        if not isinstance(lost, (UnkeepableError, EncodeError)):
            threading.Event().wait(UNKEPT_SECONDS)
            raise Reject(text_of(lost), requeue=True) from error

    def keep_failed(self, request: Context, error: BaseException) -> float | None:
        """Keep a job that failed until it is due again, or for good.

        Called where it ran, or in the worker's main process if that is gone.

        Returns:
            Seconds until it is due; None: it is a dead letter.

        Raises:
            LedgerUnavailableError: It is not kept; or SchemaError.
        """
        resilience, known = self.resilience, ledger_header(request)
        attempts = int(known.get("attempts", 0))
        if isinstance(error, WorkerLostError):
            known["lost"] = known.get("lost", 0) + 1
        born = known.get("born")
        age = 0.0 if born is None else max(0.0, resilience.fleet_time() - born)
        decision = decide(self, error, attempts + 1, age, _random)
        job = self._job_of(request, known, age)
        said = {"task": job.task, "id": job.id, "dependency": job.dependency}
        said["error"] = text_of(error)
        deadline = deadline_of(request)
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

    def _job_of(self, request: Context, ledger: dict[str, Any], age_seconds: float) -> Job:
        """Return what the ledger keeps of the job with *request* until its next attempt."""
        return job_of(
            self,
            tuple(request.args or ()),
            dict(request.kwargs or {}),
            options_of(self, request),
            queue=self._catalogued.retry_queue,
            ledger=ledger,
            age_seconds=age_seconds,
        )

    def _still_open(self, task_id: str) -> bool:
        """Begin the lease again; tell if the job is to be done: another copy may be first."""
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
