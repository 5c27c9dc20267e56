"""Counts what the app's processes do, for Prometheus."""

import json
from collections.abc import Iterable
from typing import Any

from celery import Task, signals

from resilience.clock import SystemClock
from resilience.errors import ConfigurationError
from resilience.events import (
    AnswerDegraded,
    Event,
    FallbackDrilled,
    FallbackDrillFailed,
    FallbacksExhausted,
    FanOutFinished,
)
from resilience.events.tracing import trace_id
from resilience.levels import Level
from resilience.monitor.drills import DRILLS, last_drill
from resilience.monitor.metrics import ANSWERS, LABELS, OTHER
from resilience.monitor.objective import Objective
from resilience.monitor.tally import Tally
from resilience.outcome import Outcome
from resilience.partial import PartialResponse
from resilience.tasks.envelope import SENT_HEADER, deadline_of, header, ledger_header, seconds_or
from resilience.tasks.publisher import publishes
from resilience.tasks.resilience import Resilience


class PrometheusListener:
    """Counts events, and jobs by the level of their answer; see docs/telemetry.md.

    Each process sends what it counted with its pulse, and the store adds it up. `expose`, or
    `celery -A app resilience metrics`, shows the totals of all processes.
    """

    def __init__(self, *, objectives: Iterable[Objective] = ()) -> None:
        """Listen to nothing yet.

        Args:
            objectives: How many answers are to be FULL; their burn rates become metrics. Of two
                about the same the last one counts.
        """
        self.objectives = tuple(objectives)
        self._app: Resilience | None = None
        self._tallies: dict[Resilience, Tally] = {}

    def attach(self, resilience: Resilience) -> None:
        """Count what happens in the app of *resilience*.

        Raises:
            ConfigurationError: The listener has an app already, or an objective names an unknown
                dependency.
        """
        if self._app is not None:
            msg = "a PrometheusListener counts for one app; make another one for the other app"
            raise ConfigurationError(msg)
        for objective in self.objectives:
            if objective.dependency is not None:
                resilience.dependencies.require(objective.dependency, where="Objective")
        self._app = resilience
        signals.before_task_publish.connect(self._on_publish)
        signals.task_prerun.connect(self._on_begin)
        signals.task_success.connect(self._on_success)
        signals.task_failure.connect(self._on_failure)
        signals.task_revoked.connect(self._on_revoked)
        signals.worker_process_shutdown.connect(self._on_exit)
        signals.worker_shutdown.connect(self._on_exit)

    def __call__(self, event: Event) -> None:
        """Count *event*."""
        tally = self._tally()
        if tally is None:
            return
        name = type(event).__name__
        dependency = self._dependency(getattr(event, "dependency", getattr(event, "queue", None)))
        tally.add("events", name if name in LABELS["event"] else OTHER, dependency)
        if isinstance(event, AnswerDegraded | FallbacksExhausted):
            level = getattr(event, "level", Level.FAILED)
            reason = getattr(event, "reason", "")
            kind = reason if reason in LABELS["kind"] else "error"
            trace = trace_id()
            exemplar = json.dumps({"trace_id": trace, "at": SystemClock.now()}) if trace else ""
            tally.add("degraded_answers", dependency, Level(level).name, kind, exemplar=exemplar)
        elif isinstance(event, FallbackDrilled | FallbackDrillFailed):
            level = event.level if isinstance(event, FallbackDrilled) else Level.FAILED
            call = event.call if self._app and event.call in self._app.app.tasks else OTHER
            exemplar = last_drill(event, self._now())
            tally.add(DRILLS, call, dependency, Level(level).name, exemplar=exemplar)
        elif isinstance(event, FanOutFinished):
            ended = event.ended if event.ended in LABELS["ended"] else OTHER
            tally.add("fanouts", ended, Level(event.level).name)

    def _tally(self, task: Task[Any, Any] | None = None) -> Tally | None:
        """Return where to count; None: no store adds anything up, or *task* is another app's."""
        app = self._app
        if app is None or (task is not None and task.app is not app.app):
            return None
        if not self._tallies and app.why_no_store is None:
            # No lock: a child that is forked meanwhile would wait for a thread that it has not.
            app.pulse.carry(self._tallies.setdefault(app, Tally(app.pulse)))
        return self._tallies.get(app)

    def _dependency(self, name: object) -> str:
        """Return the declared dependency that *name* is, or whose queue it is."""
        if not name or self._app is None:
            return ""
        declared = self._app.dependencies
        if name in declared:
            return str(name)
        return next((owner.name for owner in declared.values() if name in owner.queues), OTHER)

    def _now(self) -> float:
        """Return fleet time as this process knows it; asks nobody."""
        return 0.0 if self._app is None else self._app.pulse.fleet_time(SystemClock.monotonic())

    def _on_publish(self, headers: Any = None, **_: object) -> None:  # noqa: ANN401 - Celery's
        ours = self._app is not None and publishes(self._app.app)
        if ours and isinstance(headers, dict):
            headers[SENT_HEADER] = self._now()

    def _on_begin(self, task: Task[Any, Any], **_: object) -> None:
        tally, request = self._tally(task), task.request
        deadline = deadline_of(request)
        sent = seconds_or(header(request, SENT_HEADER), deadline.sent if deadline else 0.0)
        again = request.eta or ledger_header(request).get("dispatches")
        if tally is not None and sent and not again:
            dependency = self._dependency(getattr(task, "dependency", None))
            tally.observe("queue_wait_seconds", dependency, max(0.0, self._now() - sent))

    def _on_success(self, sender: Task[Any, Any], result: object, **_: object) -> None:
        answer = result if isinstance(result, Outcome | PartialResponse) else None
        self._end(sender, Level.FULL if answer is None else answer.level)

    def _on_failure(self, sender: Task[Any, Any], **_: object) -> None:
        self._end(sender, Level.FAILED)

    def _on_revoked(self, sender: Task[Any, Any], *, expired: bool = False, **_: object) -> None:
        if expired:  # by its deadline; nobody waits for what somebody has revoked
            self._end(sender, Level.FAILED)

    def _end(self, task: Task[Any, Any], level: Level) -> None:
        if (tally := self._tally(task)) is not None:
            name = str(task.name) if task.name in task.app.tasks else OTHER
            dependency = self._dependency(getattr(task, "dependency", None))
            tally.add(ANSWERS, name, dependency, Level(level).name)

    def _on_exit(self, **_: object) -> None:
        for tally in self._tallies.values():
            tally.flush()
