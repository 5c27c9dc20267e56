"""What people add to every message of their apps, switched on in a process by its name."""

import os
import sys
from pathlib import Path
from typing import Any

from celery import signals

INSTRUMENT = "INSTRUMENT"
CLOSED = "http://key@127.0.0.1:1/1"
"""An address where nobody listens: what is captured goes nowhere."""


def path_of(name: str) -> str | None:
    """Return the folder that the process of the instrument called *name* needs in its path."""
    older = Path(sys.prefix, "other", "sentry-sdk-2.53")
    return str(older) if name == "sentry-2.53" else None


def switch_on() -> None:
    """Instrument Celery in this process, as the environment says."""
    name = os.environ[INSTRUMENT]  # noqa: TID251 - an entry point
    if name.startswith("sentry"):
        _sentry(name)
    elif name == "opentelemetry":
        _opentelemetry()
    elif name == "nested":
        signals.before_task_publish.connect(_nest, weak=False)


def _sentry(name: str) -> None:
    import sentry_sdk  # noqa: PLC0415 - of the path of this process
    from sentry_sdk.integrations.celery import CeleryIntegration  # noqa: PLC0415

    assert sentry_sdk.VERSION.startswith("2.53" if name == "sentry-2.53" else "2.")
    sentry_sdk.init(
        dsn=CLOSED,
        traces_sample_rate=1.0,
        integrations=[CeleryIntegration(monitor_beat_tasks=True)],
        auto_enabling_integrations=False,  # it would import every framework that is installed
        transport=lambda _: None,
    )


def _opentelemetry() -> None:
    from opentelemetry import trace  # noqa: PLC0415 - where it is wanted
    from opentelemetry.instrumentation.celery import CeleryInstrumentor  # noqa: PLC0415
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415

    trace.set_tracer_provider(TracerProvider())
    CeleryInstrumentor().instrument()  # type: ignore[no-untyped-call] # theirs


def _nest(headers: dict[str, Any] | None = None, **_: object) -> None:
    """Put headers of the user's own into a header called "headers"."""
    if headers is not None:
        headers["headers"] = {"tenant": "a"}
