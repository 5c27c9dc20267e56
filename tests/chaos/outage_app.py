"""An adopted app whose jobs write down when they ran, in a file that outlives every process."""

import json
import os
import threading
from pathlib import Path
from typing import Any

from celery import Celery

from resilience.clock import SystemClock
from resilience.dependency import Dependency
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


class Runs:
    """A file to which all processes append a line per step."""

    def __init__(self, path: Path) -> None:
        """Write to *path*."""
        self._path = path

    def note(self, what: str, job: int) -> None:
        """Write down what happens to *job* now."""
        line = json.dumps({"what": what, "job": job, "at": SystemClock.now()})
        file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        try:
            os.write(file, f"{line}\n".encode())
        finally:
            os.close(file)

    def read(self) -> list[dict[str, Any]]:
        """Return all lines, in the order in which they were written."""
        if not self._path.exists():
            return []
        return [json.loads(line) for line in self._path.read_text().splitlines()]


def make_app(broker: str, settings: Settings, runs: Runs, **options: Any) -> Celery:  # noqa: ANN401
    """Return the app with its tasks `work`, `spin` and `echo`; *options* are settings of Celery."""
    app = Celery("outage", broker=broker, set_as_current=False)
    app.conf.update(result_backend=settings.store_url, **options)
    Resilience(app, dependencies=[Dependency(QUEUE)], settings=settings, listeners=())

    @app.task(name="work", base=FireAndForgetTask, dependency=QUEUE, shared=False)
    def work(job: int) -> None:
        runs.note("begun", job)
        threading.Event().wait(JOB_SECONDS if job % LONG_EVERY else LONG_SECONDS)
        runs.note("done", job)

    @app.task(name="spin", base=FireAndForgetTask, dependency=QUEUE, shared=False)
    def spin(job: int) -> None:
        runs.note("begun", job)
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
        Runs(Path(os.environ["RUNS"])),  # noqa: TID251 - as above
        **json.loads(os.environ["OPTIONS"]),  # noqa: TID251 - as above
    )
    if "RUNS" in os.environ  # noqa: TID251 - as above
    else None
)
