"""An app whose jobs take a moment, and write down when they begin and end."""

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
from resilience.tasks.task import ResilientTask

QUEUE = "crash"
JOB_SECONDS = 0.2


class Notes:
    """Lines in a file, each on disk once it is said."""

    def __init__(self, path: Path) -> None:
        """Write to *path*."""
        self._path = path

    def add(self, what: str, job: int) -> None:
        """Write down what happens to *job* now, and in which worker."""
        said = {"what": what, "job": job, "worker": os.getppid(), "at": SystemClock.now()}
        file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        try:
            os.write(file, f"{json.dumps(said)}\n".encode())
            os.fsync(file)
        finally:
            os.close(file)

    def read(self) -> list[dict[str, Any]]:
        """Return all, in their order."""
        if not self._path.exists():
            return []
        return [json.loads(line) for line in self._path.read_text().splitlines()]


def make_app(broker: str, settings: Settings, notes: Notes) -> Celery:
    """Return the app with its task `work`."""
    app = Celery("crash", broker=broker, set_as_current=False)
    Resilience(app, dependencies=[Dependency(QUEUE, breaker=None)], settings=settings)

    @app.task(name="work", base=ResilientTask, dependency=QUEUE, shared=False, ignore_result=True)
    def work(job: int) -> None:
        notes.add("begun", job)
        threading.Event().wait(JOB_SECONDS)
        notes.add("done", job)

    return app


app = (
    make_app(
        os.environ["CELERY_BROKER_URL"],  # noqa: TID251 - an entry point
        Settings.from_environment(),
        Notes(Path(os.environ["NOTES"])),  # noqa: TID251 - as above
    )
    if "NOTES" in os.environ  # noqa: TID251 - as above
    else None
)
