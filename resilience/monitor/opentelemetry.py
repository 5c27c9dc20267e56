"""Events in traces and metrics of OpenTelemetry (`celery-resilience[otel]`)."""

import json
import re
import sys
from collections.abc import Mapping
from typing import Any, Final

from celery import Celery, signals, states
from opentelemetry import context, propagate, trace
from opentelemetry.metrics import MeterProvider, get_meter
from opentelemetry.trace import Span, SpanKind, TracerProvider

from resilience.events import AnswerDegraded, Event, FallbacksExhausted, FlagMisused
from resilience.events.plain import plain_fields, shortened
from resilience.levels import Level
from resilience.settings import semantic_conventions_here
from resilience.tasks.publisher import publishes

NAME: Final = "resilience"
EVALUATION: Final = "feature_flag.evaluation"
NAMES_MAX: Final = 100
"""Names of dependencies that metrics tell apart in a process; those beyond them are `other`."""
KEPT: Final = {f"{NAME}.{field}" for field in ("dependency", "reason", "source", "age", "feature")}
"""Attributes of the worst event that the span gets as well, with its level."""


class OpenTelemetry:
    """Listens by adding to the current span, and by counting.

    If opentelemetry-instrumentation-celery is active, jobs have its spans. Otherwise this listener
    makes a span for each job, in the trace of the publisher. It never waits: the providers send
    spans and metrics.
    """

    def __init__(
        self,
        app: Celery[Any],
        *,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
    ) -> None:
        """Trace the jobs of *app*, with the global providers unless others are given."""
        self._app = app
        self._tracer = trace.get_tracer(NAME, tracer_provider=tracer_provider)
        meter = get_meter(NAME, meter_provider=meter_provider)
        self._events = meter.create_counter(f"{NAME}.events", "{event}", "Events by class")
        self._conventions = semantic_conventions_here() & {"messaging", "messaging/dup"}
        self._spans: dict[str, tuple[Span, Any]] = {}
        self._names: set[str] = set()
        signals.before_task_publish.connect(self._on_publish, weak=False)
        signals.task_prerun.connect(self._on_begin, weak=False)
        signals.task_postrun.connect(self._on_end, weak=False)

    def __call__(self, event: Event) -> None:
        """Count *event*, and add it to the current span if there is one."""
        fields = plain_fields(event)
        self._events.add(1, self._labels(event, fields))
        span = trace.get_current_span()
        if not span.is_recording():
            return
        filled = {name: value for name, value in fields.items() if value is not None}
        attributes = {f"{NAME}.{name}": _attribute(value) for name, value in filled.items()}
        span.add_event(event_name(type(event)), attributes)
        exhausted = isinstance(event, FallbacksExhausted)
        level = Level.FAILED if exhausted else getattr(event, "level", Level.FULL)
        if level > (getattr(span, "attributes", None) or {}).get(f"{NAME}.level", 0):
            kept = {name: attributes[name] for name in KEPT & attributes.keys()}
            span.set_attributes({**kept, f"{NAME}.level": int(level)})
        if (evaluation := _evaluation(event)) is not None:
            span.add_event(EVALUATION, evaluation)

    def _labels(self, event: Event, fields: Mapping[str, Any]) -> dict[str, Any]:
        labels = {"resilience.event": type(event).__name__}
        if name := fields.get("dependency"):
            if len(self._names) < NAMES_MAX:
                self._names.add(name)
            labels["resilience.dependency"] = name if name in self._names else "other"
        if "level" in fields:
            labels["resilience.level"] = fields["level"]
        return labels

    def _on_publish(self, headers: dict[str, Any] | None = None, **_: object) -> None:
        if headers is not None and publishes(self._app) and not _is_instrumented():
            propagate.inject(headers)

    def _on_begin(self, task_id: str, task: Any, **_: object) -> None:  # noqa: ANN401 - Celery's
        if task.app is not self._app or _is_instrumented():
            return
        names = propagate.get_global_textmap().fields
        headers = {name: getattr(task.request, name, None) for name in names}
        above = propagate.extract({k: v for k, v in headers.items() if isinstance(v, str)})
        name, attributes = self._named(task)
        span = self._tracer.start_span(name, above, SpanKind.CONSUMER, attributes)
        token = context.attach(trace.set_span_in_context(span, above))
        self._spans[task_id] = span, token

    def _on_end(self, task_id: str, state: str | None = None, **_: object) -> None:
        span, token = self._spans.pop(task_id, (None, None))
        if span is None or token is None:
            return
        if state == states.FAILURE:
            span.set_status(trace.StatusCode.ERROR)
        context.detach(token)
        span.end()

    def _named(self, task: Any) -> tuple[str, dict[str, str]]:  # noqa: ANN401 - Celery's
        """Return name and attributes of the span of the job that *task* runs.

        With `messaging` in `OTEL_SEMCONV_STABILITY_OPT_IN` they follow the newer conventions, with
        `messaging/dup` both, else those of opentelemetry-instrumentation-celery.
        """
        queue = str((task.request.delivery_info or {}).get("routing_key") or "")
        attributes = {"celery.task_name": task.name, "messaging.message.id": task.request.id}
        if "messaging" not in self._conventions:
            attributes |= {"celery.action": "run", "messaging.destination": queue}
        if not self._conventions:
            return f"run/{task.name}", attributes
        with self._app.connection_for_write() as unconnected:
            system = str(unconnected.transport.driver_type)
        attributes |= {"messaging.system": "rabbitmq" if system == "amqp" else system}
        attributes |= {"messaging.operation.name": "process", "messaging.operation.type": "process"}
        return f"process {queue}", attributes | {"messaging.destination.name": queue}


def event_name(event: type[Event]) -> str:
    """Return what events of this class are called in a span: `resilience.answer_degraded`."""
    return f"{NAME}." + re.sub(r"(?<=[a-z])(?=[A-Z])", "_", event.__name__).lower()


def _attribute(value: object) -> Any:  # noqa: ANN401 - what OpenTelemetry takes
    return json.dumps(value) if isinstance(value, list | dict) else value


def _evaluation(event: Event) -> dict[str, Any] | None:
    """Return what the conventions for feature flags say of an answer without its feature."""
    if isinstance(event, FlagMisused):
        result = {"feature_flag.result.reason": "error", "error.type": "flag_not_found"}
        variant = "on" if event.answer else "off"
    elif isinstance(event, AnswerDegraded) and event.feature is not None:
        result, variant = {}, "off"
    else:
        return None
    named = {"feature_flag.key": shortened(str(event.feature)), "feature_flag.provider.name": NAME}
    return {**named, **result, "feature_flag.result.variant": variant}


def _is_instrumented() -> bool:
    """Tell whether opentelemetry-instrumentation-celery makes the spans of this process."""
    theirs = sys.modules.get("opentelemetry.instrumentation.celery")
    return theirs is not None and bool(theirs.CeleryInstrumentor().is_instrumented_by_opentelemetry)
