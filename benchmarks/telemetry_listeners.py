"""The listeners that the telemetry benchmark measures."""

from collections.abc import Callable, Mapping
from typing import Any

from celery import Celery
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from resilience.events import Listener, log_event
from resilience.monitor.celery_events import CeleryEvents
from resilience.monitor.opentelemetry import OpenTelemetry
from resilience.monitor.prometheus import PrometheusListener


class Nowhere(SpanExporter):
    """Exports spans to nobody."""

    def export(self, spans: object) -> SpanExportResult:  # noqa: ARG002 - OpenTelemetry's signature
        """Take *spans*."""
        return SpanExportResult.SUCCESS


def traced() -> TracerProvider:
    """Return a provider whose spans are exported in batches, as in production."""
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(Nowhere()))
    return provider


LISTENERS: Mapping[str, Callable[[Celery[Any]], Listener]] = {
    "log": lambda _: log_event,
    "celery_events": CeleryEvents,
    "prometheus": lambda _: PrometheusListener(),
    "opentelemetry": lambda app: OpenTelemetry(app, tracer_provider=traced()),
}
"""Every listener that the library has, as an app would list it."""
