"""What traces and metrics of OpenTelemetry say of degradation."""

import json
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import pytest
from celery import Celery, signals
from opentelemetry.instrumentation.celery import CeleryInstrumentor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from resilience.events import AnswerDegraded, Event, FallbacksExhausted, FlagMisused, StoreLost
from resilience.levels import Level
from resilience.monitor.opentelemetry import OpenTelemetry, event_name
from resilience.tasks.publisher import publishing
from tests.every_event import EVERY, make

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
OPT_IN = "OTEL_SEMCONV_STABILITY_OPT_IN"
OLDER = {"celery.action": "run", "messaging.destination": "search"}
NEWER = {
    "messaging.system": "redis",
    "messaging.operation.name": "process",
    "messaging.operation.type": "process",
    "messaging.destination.name": "search",
}


def degraded(level: Level, reason: str = "CircuitOpenError", **more: Any) -> AnswerDegraded:  # noqa: ANN401
    """Return the event of an answer at *level*."""
    said = {"call": "find", "dependency": "search", "error": "down", "source": "stale", "age": 1.5}
    return AnswerDegraded(level=level, reason=reason, **{**said, **more})


class Traced:
    """An app with the listener, and what it has exported."""

    def __init__(self) -> None:
        """Make both, with providers of their own."""
        self.exporter, self.reader = InMemorySpanExporter(), InMemoryMetricReader()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        meters = MeterProvider([self.reader])
        self.app = Celery("traced", broker="redis://", set_as_current=False)
        self.listener = OpenTelemetry(
            self.app, tracer_provider=self.provider, meter_provider=meters
        )
        self.says: list[Event] = []

        @self.app.task(name="find", shared=False)
        def find() -> None:
            for event in self.says:
                if isinstance(event, Exception):
                    raise event
                self.listener(event)

        self.task: Any = find

    def run(self, *events: Any) -> ReadableSpan:  # noqa: ANN401 - events, or an error to end in
        """Run a job that announces *events*, as a worker does; return its only span."""
        self.says[:] = events
        self.exporter.clear()
        self.task.apply(task_id="job-1", throw=False)
        [span] = self.exporter.get_finished_spans()
        return span

    def points(self) -> dict[tuple[Any, ...], int]:
        """Return what was counted, by labels."""
        data: Any = json.loads(self.reader.get_metrics_data().to_json())
        [scope] = data["resource_metrics"][0]["scope_metrics"]
        [metric] = scope["metrics"]
        assert metric["name"] == "resilience.events"
        names = ("resilience.event", "resilience.dependency", "resilience.level")
        return {
            tuple(point["attributes"].get(name) for name in names): point["value"]
            for point in metric["data"]["data_points"]
        }


@pytest.fixture
def traced() -> Iterator[Traced]:
    """An app whose listener is disconnected at the end."""
    made = Traced()
    yield made
    signals.before_task_publish.disconnect(made.listener._on_publish)  # noqa: SLF001 - no end of its own
    signals.task_prerun.disconnect(made.listener._on_begin)  # noqa: SLF001
    signals.task_postrun.disconnect(made.listener._on_end)  # noqa: SLF001


def of(span: ReadableSpan, prefix: str) -> dict[str, Any]:
    """Return the attributes of *span* that begin with *prefix*."""
    return {
        name: value for name, value in (span.attributes or {}).items() if name.startswith(prefix)
    }


@pytest.mark.parametrize("text", ["plain", "\x00\n\udc80 <b>" * 100_000], ids=len)
@pytest.mark.parametrize("kind", EVERY, ids=lambda kind: kind.__name__)
def test_every_event_is_in_the_span_and_counted(
    traced: Traced, kind: type[Event], text: str
) -> None:
    """With its fields, of bounded size."""
    span = traced.run(make(kind, text))

    first = span.events[0]
    assert first.name == event_name(kind)
    assert len(str(dict(first.attributes or {}))) < 100_000
    assert set(first.attributes or {}) == {f"resilience.{one.name}" for one in fields(kind)}
    [(name, _, _)] = traced.points()
    assert name == kind.__name__


def test_job_has_a_span_of_ours_where_nobody_else_makes_one(traced: Traced) -> None:
    """It ends with the job, and fails with it."""
    span = traced.run(StoreLost(error="x"))
    assert (span.name, span.kind, span.status.status_code) == (
        "run/find",
        SpanKind.CONSUMER,
        StatusCode.UNSET,
    )
    assert of(span, "celery.task_name") == {"celery.task_name": "find"}

    assert traced.run(ConnectionError("down")).status.status_code is StatusCode.ERROR


def test_job_is_in_the_trace_of_its_publisher(traced: Traced) -> None:
    """The message carries it; a header that is no trace begins a new one."""
    with traced.provider.get_tracer("web").start_as_current_span("request") as request:
        headers: dict[str, Any] = {}
        with publishing(traced.app):
            signals.before_task_publish.send(sender="find", headers=headers)
    assert headers["traceparent"].split("-")[1] == f"{request.get_span_context().trace_id:032x}"

    for said, trace in ((f"00-{TRACE}-{PARENT}-01", TRACE), ("nonsense", None), (7, None)):
        traced.exporter.clear()
        traced.task.push_request(id="job-2", traceparent=said)
        signals.task_prerun.send(sender=traced.task, task_id="job-2", task=traced.task)
        signals.task_postrun.send(sender=traced.task, task_id="job-2", task=traced.task)
        traced.task.pop_request()
        [span] = traced.exporter.get_finished_spans()
        found = f"{span.context.trace_id:032x}"
        assert (found == TRACE) is (trace is not None)


def test_spans_of_the_instrumentation_are_enriched_and_not_doubled(traced: Traced) -> None:
    """A job has one span, whoever makes it, and it says how good the answer was."""
    CeleryInstrumentor().instrument(tracer_provider=traced.provider)  # type: ignore[no-untyped-call]
    try:
        span = traced.run(degraded(Level.STALE))
    finally:
        CeleryInstrumentor().uninstrument()  # type: ignore[no-untyped-call]

    assert span.instrumentation_scope is not None
    assert span.instrumentation_scope.name == "opentelemetry.instrumentation.celery"
    assert of(span, "resilience.")["resilience.level"] == 1


def test_span_says_the_worst_of_its_answers(traced: Traced) -> None:
    """Each answer is an event of the span; the attributes are those of the worst."""
    events = [degraded(Level.STALE), degraded(Level.STATIC, "Worst"), degraded(Level.REDUCED)]
    span = traced.run(*events)

    assert of(span, "resilience.") == {
        "resilience.level": 3,
        "resilience.reason": "Worst",
        "resilience.dependency": "search",
        "resilience.source": "stale",
        "resilience.age": 1.5,
    }
    assert len(span.events) == 3
    failed = traced.run(FallbacksExhausted(call="find", dependency="search", reasons={"run": "x"}))
    assert of(failed, "resilience.") == {"resilience.level": 4, "resilience.dependency": "search"}


@pytest.mark.parametrize(
    ("said", "name", "attributes"),
    [
        ("", "run/find", OLDER),
        ("http", "run/find", OLDER),
        ("messaging", "process search", NEWER),
        ("http, messaging/dup", "process search", OLDER | NEWER),
    ],
)
def test_span_follows_the_conventions_that_are_opted_in_to(
    said: str, name: str, attributes: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`OTEL_SEMCONV_STABILITY_OPT_IN` decides, as for other instrumentation."""
    monkeypatch.setenv(OPT_IN, said)
    traced = Traced()
    traced.task.push_request(id="job-3", delivery_info={"routing_key": "search"})
    signals.task_prerun.send(sender=traced.task, task_id="job-3", task=traced.task)
    signals.task_postrun.send(sender=traced.task, task_id="job-3", task=traced.task)
    traced.task.pop_request()
    [span] = traced.exporter.get_finished_spans()

    assert span.name == name
    common = {"celery.task_name": "find", "messaging.message.id": "job-3"}
    assert dict(span.attributes or {}) == attributes | common


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (
            degraded(Level.REDUCED, "FeatureShedError", feature="ranking"),
            {"feature_flag.key": "ranking", "feature_flag.result.variant": "off"},
        ),
        (
            FlagMisused(feature="rank", answer=True),
            {
                "feature_flag.key": "rank",
                "feature_flag.result.variant": "on",
                "feature_flag.result.reason": "error",
                "error.type": "flag_not_found",
            },
        ),
        (degraded(Level.STALE), None),
    ],
    ids=["shed", "unknown", "no-flag"],
)
def test_evaluation_of_a_flag_is_an_event_of_the_conventions(
    traced: Traced, event: Event, expected: dict[str, str] | None
) -> None:
    """Tools that know `feature_flag.evaluation` show which flag made the answer what it is."""
    span = traced.run(event)
    found = [one.attributes for one in span.events if one.name == "feature_flag.evaluation"]

    provider = {"feature_flag.provider.name": "resilience"}
    assert [dict(one or {}) for one in found] == ([expected | provider] if expected else [])


def test_metrics_tell_no_more_than_a_hundred_dependencies_apart(traced: Traced) -> None:
    """A name may come with a message: it must not make a series each."""
    for number in range(1_000):
        traced.listener(degraded(Level.STALE, dependency=f"d{number}"))
    points = traced.points()

    assert len(points) == 101
    assert points["AnswerDegraded", "other", 1] == 900
    assert points["AnswerDegraded", "d0", 1] == 1


def test_event_outside_of_a_span_is_counted(traced: Traced) -> None:
    """Nothing else happens."""
    traced.listener(StoreLost(error="x"))
    traced.listener(degraded(Level.STALE, dependency=""))
    assert traced.points() == {("StoreLost", None, None): 1, ("AnswerDegraded", None, 1): 1}
    assert not traced.exporter.get_finished_spans()
