"""Counts what the app's processes do, for Prometheus."""

import json
import sys
from collections.abc import Iterable
from typing import Any, Final

from celery import Task
from celery.app.task import Context
from celery.signals import (
    before_task_publish,
    task_failure,
    task_prerun,
    task_revoked,
    task_success,
    worker_process_shutdown,
    worker_shutdown,
)

from resilience import events
from resilience.clock import SystemClock
from resilience.errors import ConfigurationError
from resilience.events import AnswerDegraded, Event, FallbacksExhausted, FanOutFinished
from resilience.levels import Level
from resilience.monitor.metrics import OTHER
from resilience.monitor.objective import Objective
from resilience.monitor.tally import Tally
from resilience.outcome import Outcome
from resilience.partial import PartialResponse
from resilience.tasks.envelope import SENT_HEADER, deadline_of, header, ledger_header, seconds_or
from resilience.tasks.resilience import Resilience

EVENTS: Final = {name for name in events.__all__ if name[0].isupper()} - {"Event", "Listener"}
KINDS: Final = {
    "CircuitOpenError": "open",
    "BulkheadFullError": "full",
    "FeatureShedError": "shed",
    "BudgetExceededError": "late",
    "AttemptTimeoutError": "timeout",
}
"""What a degraded answer is put down to; everything else is `error`."""
ENDED: Final = {"complete", "required", "deadline", "unpublished"}


class PrometheusListener:
    """Counts events, and jobs by the level of their answer; see docs/telemetry.md.

    Each process sends what it counted with its pulse, and the store adds it up. `expose`, or
    `celery -A app resilience metrics`, shows the totals of all processes.
    """

    def __init__(self, *, objectives: Iterable[Objective] = ()) -> None:
        """Listen to nothing yet.

        Args:
            objectives: How many answers are to be FULL; their burn rates become metrics.

        Raises:
            ConfigurationError: Two objectives are about the same.
        """
        self.objectives = tuple(objectives)
        names = [one.name for one in self.objectives]
        for name in names:
            if names.count(name) > 1:
                msg = f"PrometheusListener has two objectives for {name!r}; keep one of them"
                raise ConfigurationError(msg)
        self._app: Resilience | None = None
        self._tallies: dict[str, Tally] = {}

    def attach(self, resilience: Resilience) -> None:
        """Count what happens in the app of *resilience*.

        Raises:
            ConfigurationError: The listener has an app already, or an objective names an unknown
                dependency.
        """
        if self._app is not None:
            msg = "a PrometheusListener counts for one app; make another one for the other app"
            raise ConfigurationError(msg)
        for one in self.objectives:
            if one.dependency is not None:
                resilience.dependencies.require(one.dependency, where="Objective")
        self._app = resilience
        before_task_publish.connect(self._on_publish)
        task_prerun.connect(self._on_begin)
        task_success.connect(self._on_success)
        task_failure.connect(self._on_failure)
        task_revoked.connect(self._on_revoked)
        worker_process_shutdown.connect(self._on_exit)
        worker_shutdown.connect(self._on_exit)

    def __call__(self, event: Event) -> None:
        """Count *event*."""
        tally = self._counts()
        if tally is None:
            return
        name = type(event).__name__
        dependency = self._dependency(getattr(event, "dependency", getattr(event, "queue", None)))
        tally.add("events", name if name in EVENTS else OTHER, dependency)
        match event:
            case AnswerDegraded():
                kind = KINDS.get(event.reason, "error")
                self._degraded(tally, dependency, event.level, kind)
                if event.age is not None:
                    tally.observe("answer_age_seconds", dependency, event.age)
            case FallbacksExhausted():
                self._degraded(tally, dependency, Level.FAILED, "error")
            case FanOutFinished():
                ended = event.ended if event.ended in ENDED else OTHER
                tally.add("fanouts", ended, Level(event.level).name)

    @staticmethod
    def _degraded(tally: Tally, dependency: str, level: Level, kind: str) -> None:
        exemplar = ""
        if trace := current_trace():
            exemplar = json.dumps({"trace_id": trace, "at": SystemClock.now()})
        tally.add("degraded_answers", dependency, Level(level).name, kind, exemplar=exemplar)

    def _counts(self) -> Tally | None:
        """Return where to count; None: there is no store to add anything up."""
        tally = self._tallies.get("made")
        if tally is None and self._app is not None and self._app.why_no_store is None:
            tally = self._tallies.setdefault("made", Tally(self._app.pulse))  # no lock: see _share
            self._app.pulse.carry(tally)
        return tally

    def _dependency(self, name: object) -> str:
        """Return the declared dependency that *name* is, or whose queue it is."""
        if name is None or self._app is None:
            return ""
        known = self._app.dependencies
        if name in known:
            return str(name)
        return next((one.name for one in known.values() if name in one.queues), OTHER)

    def _is_ours(self, task: Task[Any, Any]) -> bool:
        return self._app is not None and task.app is self._app.app

    def _on_publish(self, headers: Any = None, **_: object) -> None:  # noqa: ANN401 - Celery's
        if self._app is not None and isinstance(headers, dict):
            headers[SENT_HEADER] = self._now()

    def _on_begin(self, task: Task[Any, Any], **_: object) -> None:
        tally = self._counts() if self._is_ours(task) else None
        if tally is None:
            return
        request: Context = task.request
        request.update(resilience_began=SystemClock.monotonic())
        deadline = deadline_of(request)
        sent = seconds_or(header(request, SENT_HEADER), 0.0) or (deadline.sent if deadline else 0)
        if sent and not request.eta and not ledger_header(request).get("dispatches"):
            wait = max(0.0, self._now() - sent)
            tally.observe("queue_wait_seconds", self._dependency_of(task), wait)

    def _on_success(self, sender: Task[Any, Any], result: object, **_: object) -> None:
        answer = result if isinstance(result, Outcome | PartialResponse) else None
        self._end(sender, Level.FULL if answer is None else answer.level)

    def _on_failure(self, sender: Task[Any, Any], **_: object) -> None:
        self._end(sender, Level.FAILED)

    def _on_revoked(self, sender: Task[Any, Any], expired: bool = False, **_: object) -> None:  # noqa: FBT001, FBT002 - Celery's
        if expired:  # by its deadline; what somebody has revoked, nobody waits for
            self._end(sender, Level.FAILED)

    def _end(self, task: Task[Any, Any], level: Level) -> None:
        tally = self._counts() if self._is_ours(task) else None
        if tally is None:
            return
        dependency, name = self._dependency_of(task), str(task.name)
        known = name if name in task.app.tasks else OTHER
        below = dependency if level > Level.FULL else ""
        tally.answer((known, dependency, Level(level).name), below_full=below)
        began = getattr(task.request, "resilience_began", None)
        if began is not None:
            tally.observe("job_seconds", dependency, SystemClock.monotonic() - began)

    def _dependency_of(self, task: Task[Any, Any]) -> str:
        return self._dependency(getattr(task, "dependency", None))

    def _now(self) -> float:
        """Return fleet time as this process knows it; asks nobody."""
        return 0.0 if self._app is None else self._app.pulse.fleet_time(SystemClock.monotonic())

    def _on_exit(self, **_: object) -> None:
        for tally in self._tallies.values():
            tally.flush()


def current_trace() -> str:
    """Return the id of the sampled trace that is current; empty without one, or OpenTelemetry."""
    api = sys.modules.get("opentelemetry.trace")
    if api is None:
        return ""
    context = api.get_current_span().get_span_context()
    return f"{context.trace_id:032x}" if context.is_valid and context.trace_flags.sampled else ""
