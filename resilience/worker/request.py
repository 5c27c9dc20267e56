"""What the worker's main process does with a job that its child cannot speak for."""

from collections.abc import Sequence
from typing import Any

from billiard.einfo import (  # type: ignore[attr-defined] # one is missing in the stubs
    ExceptionInfo,
    ExceptionWithTraceback,
)
from celery import Celery
from celery.exceptions import TaskRevokedError, TimeLimitExceeded, WorkerLostError
from celery.signals import task_revoked
from celery.worker.request import Request
from celery.worker.state import task_ready

from resilience.clock import SystemClock
from resilience.errors import BudgetExceededError, UnkeepableError
from resilience.events import Event, JobUnkept
from resilience.outcome import Hop
from resilience.tasks.deadline import announce_exceeded
from resilience.tasks.envelope import (
    BUDGET_HEADER,
    RECEIVED_HEADER,
    deadline_of,
    header,
    ledger_header,
    slot_of,
)
from resilience.tasks.fire import LEDGER_ERRORS, FireAndForgetTask
from resilience.tasks.reporting import report_failure
from resilience.tasks.resilience import Resilience
from resilience.worker.guard import end_unread, guarded
from resilience.worker.results import logged, store_revoked
from resilience.worker.revoking import end_kept_rows

GRACE_SECONDS = 1.0
"""A prefork child that has not ended its job so long after the job's deadline is killed."""


class ResilientRequest(Request):
    """Drops a job over its deadline, and reports a part that no child can speak for."""

    _runs_again = False
    _reported = False
    _unkept = False
    _accepted: float | None = None
    _failed = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - Celery's
        """Note when the worker took the message, if its time is limited."""
        super().__init__(*args, **kwargs)
        # An app that was never adopted has no fleet time: another publisher's header says nothing.
        adopted = getattr(self.app, "resilience", None) is not None
        self._deadline = deadline_of(self.request_dict) if adopted else None
        if adopted and self.dependency is not None:
            self.resilience.releases.count(self.dependency, again=self._ran_before())
        if self._deadline is not None:
            self.request_dict[RECEIVED_HEADER] = self.resilience.fleet_time()
        elif header(self.request_dict, BUDGET_HEADER) is not None:
            self.request_dict[BUDGET_HEADER] = None  # malformed, and the child need not say so

    @property
    def dependency(self) -> str | None:
        """Whose job it is."""
        return getattr(self.task, "dependency", None)

    def _ran_before(self) -> bool:
        headers = self.request_dict
        known = ledger_header(headers)
        redelivered = (self.delivery_info or {}).get("redelivered")
        return bool(headers.get("retries") or known.get("dispatches") or redelivered)

    @property
    def _adopted(self) -> Resilience | None:
        return getattr(self.app, "resilience", None)

    @property
    def resilience(self) -> Resilience:
        """What its app declared."""
        app: Celery[Any] | None = self.app
        if app is None:
            msg = f"{self!r} has no app"
            raise RuntimeError(msg)
        return Resilience.of(app)

    def revoked(self) -> bool:
        """Tell whether the job is dropped before it runs, and report it if so.

        One that is not has until its deadline; the time limits, which the pool enforces, say so.
        """
        try:
            return self._is_dropped()
        except Exception as error:  # noqa: BLE001 - a lost connection is raised again
            end_unread(self, error)
            return True

    def _is_dropped(self) -> bool:
        if not self._already_revoked and self._has_expired():
            self.keep(TaskRevokedError("expired"))
        if super().revoked():
            return True
        deadline = self._deadline
        if deadline is None:
            return False
        now = self.resilience.fleet_time()
        left = deadline.left(now)
        if left <= 0:
            drop([self], now)
            return True
        hard, soft = self.time_limits
        others = (hard or self.task.time_limit, self.resilience.time_limit_seconds)
        limits = [one for one in others if one]
        self.time_limits = (min([*limits, left + GRACE_SECONDS]), soft)
        return False

    def _announce_revoked(
        self,
        reason: str,
        terminated: bool,  # noqa: FBT001 - Celery's signature
        signum: Any,  # noqa: ANN401 - a number or a text
        expired: bool,  # noqa: FBT001
    ) -> None:
        """Let everybody hear that the job was revoked: Celery calls this at each such end."""
        if isinstance(self.task, FireAndForgetTask) and not expired:
            end_kept_rows(self.task.app, [str(self.id)], str(self.name))
        try:
            super()._announce_revoked(reason, terminated, signum, expired)  # type: ignore[misc]
        finally:
            self._report(TaskRevokedError(reason if terminated else self.id))

    def _has_expired(self) -> bool:
        return isinstance(self.task, FireAndForgetTask) and bool(self.maybe_expire())

    def after_drop(self, now: float) -> None:
        """Let everybody hear that the job was dropped at fleet time *now*, and acknowledge it."""
        task_ready(self)
        self.send_event("task-revoked", terminated=False, signum=None, expired=True)
        self._report(self.too_late(now))
        self.acknowledge()
        self._already_revoked = True
        task_revoked.send(
            sender=self.task,
            request=self._context,  # type: ignore[attr-defined]
            terminated=False,
            signum=None,
            expired=True,
        )
        if self._deadline is not None:
            received = self.request_dict[RECEIVED_HEADER]
            queued = max(0.0, received - self._deadline.sent)
            hop = Hop(self.name, queued, max(0.0, now - received), 0.0)
            announce_exceeded(self.resilience, self.name, self.id, self._deadline, hop, now)

    def announce(self, event: Event) -> None:
        """Tell the app's listeners of *event*."""
        self.resilience.announce(event)

    def give_up(self, error: BaseException) -> None:
        """Let everybody hear that the job will not be begun, because of *error*; acknowledge it."""
        task_ready(self)
        self.send_event("task-failed", exception=repr(error), traceback="")
        self._report(error)
        self.acknowledge()

    def too_late(self, now: float) -> BudgetExceededError:
        """Return the error of a job that was not begun by fleet time *now*."""
        if self._deadline is None:
            msg = f"{self!r} has no deadline"
            raise ValueError(msg)
        return self._deadline.late(self.name, now)

    def on_accepted(self, pid: Any, time_accepted: float) -> None:  # noqa: ANN401 - a number; the stubs say text
        """Note when the job began, in monotonic seconds."""
        self._accepted = time_accepted
        adopted = self._adopted
        if adopted is not None and adopted.job_times is not None and self._deadline is not None:
            waited = adopted.fleet_time() - self._deadline.sent
            adopted.job_times.count("waits", self.dependency or "", waited)
        super().on_accepted(pid, time_accepted)

    def on_timeout(self, soft: bool, timeout: float) -> None:  # noqa: FBT001 - Celery's signature
        """Handle a time limit; a hard one killed the child."""
        super().on_timeout(soft, timeout)
        if not soft:
            self._count(TimeLimitExceeded(timeout))
            self._report(TimeLimitExceeded(timeout))

    def acknowledge(self) -> None:
        """Acknowledge the message, unless the job would be lost with it."""
        if self._unkept:
            self.reject(requeue=True)
        else:
            self._measure()
            super().acknowledge()

    def _measure(self) -> None:
        """Note how long the job took, from its begin to its end."""
        adopted, name = self._adopted, self.dependency or ""
        if adopted is None or self._accepted is None or not self.task.acks_late:
            return
        ended = SystemClock.monotonic()
        if (limit := adopted.limits.get(name)) is not None:
            limit.observe(self._accepted, ended, ok=not self._failed)
        if adopted.job_times is not None:
            adopted.job_times.count("runs", name, ended - self._accepted)
        self._accepted = None

    def reject(self, requeue: bool = False) -> None:  # noqa: FBT001, FBT002 - Celery's signature
        """Reject the message; one that is put back into the queue is not the job's end."""
        self._runs_again = self._runs_again or requeue
        super().reject(requeue=requeue)

    def on_failure(
        self,
        exc_info: ExceptionInfo,
        send_failed_event: bool = True,  # noqa: FBT001, FBT002 - Celery's signature
        return_ok: bool = False,  # noqa: FBT001, FBT002
    ) -> None:
        """Handle a failure; one that the child has not handled itself means that it is gone."""
        self._failed = True
        error = _told(exc_info)
        if isinstance(error, WorkerLostError | TimeLimitExceeded) and not return_ok:
            self.keep(error)
        try:
            super().on_failure(exc_info, send_failed_event, return_ok)
        finally:  # it raises if the result backend is away
            if isinstance(error, WorkerLostError):
                self._count(error)
            if not return_ok:
                self._report(error)

    def _retry_worker_lost(self, exc: BaseException, exc_info: ExceptionInfo) -> bool:
        self._runs_again = bool(super()._retry_worker_lost(exc, exc_info))  # type: ignore[misc]
        return self._runs_again

    def keep(self, error: BaseException) -> None:
        """Let the ledger keep a job that no child can speak for."""
        if not isinstance(self.task, FireAndForgetTask) or self.acknowledged:
            return
        with guarded(self):
            try:
                self.task.keep_failed(self._context, error)  # type: ignore[attr-defined]
            except (*LEDGER_ERRORS, UnkeepableError) as lost:
                self._unkept = not isinstance(lost, UnkeepableError)
                said = JobUnkept(task=self.name, id=str(self.id), error=str(lost))
                self.resilience.announce(said)

    def _count(self, error: BaseException) -> None:
        """Tell the breaker of a call that was cut or lost, as its process cannot."""
        if self.dependency is not None:
            self.resilience.breaker(self.dependency).record_failure(error)

    def _report(self, error: BaseException) -> None:
        # A job cancelled because the broker was lost is delivered again.
        cancelled: bool = self._already_cancelled  # type: ignore[attr-defined]
        if self._runs_again or cancelled or self._reported:
            return
        slot = slot_of(self.request_dict)
        if slot is not None and self.app is not None:
            self._reported = True
            with logged(self.id, what="its fan-out does not hear of the end of"):
                report_failure(Resilience.of(self.app), slot, error)


def drop(requests: Sequence[ResilientRequest], now: float) -> None:
    """Drop jobs that are late at fleet time *now*: first what must last, then all else.

    As Celery does for a job past its `expires`, but those that follow it in a chain, and its
    errbacks, hear of it as well: nobody waits for what will not come.
    """
    for one in requests:
        one.keep(one.too_late(now))
    store_revoked([(one, TaskRevokedError(str(one.too_late(now)))) for one in requests])
    for one in requests:
        with guarded(one):
            one.after_drop(now)


def _told(exc_info: ExceptionInfo) -> BaseException:
    """Return what the pool says has ended the child."""
    error = exc_info.exception
    if isinstance(error, ExceptionWithTraceback):
        error = error.exc
    return error if isinstance(error, Exception) else WorkerLostError(repr(error))
