"""An app whose jobs write down when they begin and end, in workers that are stopped."""

import os
import threading
from pathlib import Path

from celery import Celery

from benchmarks.diary import Diary
from resilience.dependency import Dependency
from resilience.tasks import Resilience, ResilientTask

QUEUE = "slow"
LOOK_SECONDS = 0.02

app = Celery("stopping", set_as_current=False)
app.conf.worker_prefetch_multiplier = int(os.environ.get("PREFETCH", "1"))  # noqa: TID251 - as below
Resilience(app, dependencies=[Dependency(QUEUE, timeout=None)])


def diary() -> Diary:
    """Return the file that all workers of a test write to."""
    return Diary(Path(os.environ["DIARY"]), durable=True)  # noqa: TID251 - an entry point


@app.task(base=ResilientTask, dependency=QUEUE, name="work", shared=False, ignore_result=True)
def work(number: int, seconds: float) -> None:
    """Take *seconds*, and say before and after that job *number* is run."""
    diary().note("begun", str(number))
    threading.Event().wait(seconds)
    diary().note("done", str(number))


@app.task(base=ResilientTask, dependency=QUEUE, name="hold", shared=False, ignore_result=True)
def hold(number: int) -> None:
    """Do as `work` does, until the test lets job *number* go."""
    diary().note("begun", str(number))
    while not gate(os.environ["DIARY"], number).exists():  # noqa: TID251 - an entry point
        threading.Event().wait(LOOK_SECONDS)
    diary().note("done", str(number))


def gate(path: str, number: int) -> Path:
    """Return the file whose existence lets job *number* go, beside the diary at *path*."""
    return Path(f"{path}-{number}")
