"""An adopted app whose jobs write down when they ran, in a file that outlives every process."""

import json
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from celery import Celery

from benchmarks.diary import Diary
from resilience.clock import SystemClock
from resilience.dependency import Dependency
from resilience.events import Listener
from resilience.settings import Settings
from resilience.tasks import Resilience
from resilience.tasks.fire import FireAndForgetTask
from resilience.tasks.task import ResilientTask

QUEUE = "outage"
QUEUES = (QUEUE, f"{QUEUE}.retry")
JOB_SECONDS = 0.02
LONG_SECONDS = 0.5
SPIN_SECONDS = 2.0
LONG_EVERY = 20
"""One job in so many is a long one: an outage always meets some that run."""


def make_app(
    broker: str,
    settings: Settings,
    diary: Diary,
    *,
    listeners: Sequence[Listener] = (),
    **options: Any,  # noqa: ANN401 - Celery's
) -> Celery:
    """Return the app with its tasks `work`, `spin` and `echo`; *options* are settings of Celery."""
    app = Celery("outage", broker=broker, set_as_current=False)
    app.conf.update(result_backend=settings.store_url, **options)
    dependencies = [Dependency(QUEUE)]
    Resilience(app, dependencies=dependencies, settings=settings, listeners=listeners)

    @app.task(name="work", base=FireAndForgetTask, dependency=QUEUE, shared=False)
    def work(job: int) -> None:
        diary.note("begun", job)
        threading.Event().wait(JOB_SECONDS if job % LONG_EVERY else LONG_SECONDS)
        diary.note("done", job)

    @app.task(name="spin", base=FireAndForgetTask, dependency=QUEUE, shared=False)
    def spin(job: int) -> None:
        diary.note("begun", job)
        until = SystemClock.monotonic() + SPIN_SECONDS
        while SystemClock.monotonic() < until:
            pass

    @app.task(name="echo", base=ResilientTask, dependency=QUEUE, shared=False)
    def echo(value: Any) -> Any:  # noqa: ANN401 - any JSON
        return value

    return app


app = (
    make_app(
        os.environ["CELERY_BROKER_URL"],  # noqa: TID251 - an entry point
        Settings.from_environment(),
        Diary(Path(os.environ["DIARY"])),  # noqa: TID251 - as above
        **json.loads(os.environ["OPTIONS"]),  # noqa: TID251 - as above
    )
    if "DIARY" in os.environ  # noqa: TID251 - as above
    else None
)
