"""Which trace the current code belongs to, where a process is traced with OpenTelemetry."""

import sys


def trace_id() -> str | None:
    """Return the id of the current trace in hexadecimal; None: there is no current span.

    It never imports OpenTelemetry: what the process has not imported has made no span.
    """
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return None
    context = trace.get_current_span().get_span_context()
    return f"{context.trace_id:032x}" if context.is_valid else None
