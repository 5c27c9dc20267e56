"""An app whose jobs take a moment, and write down when they begin and end."""

import os
import threading
from pathlib import Path

from celery import Celery

from benchmarks.diary import Diary
from resilience.dependency import Dependency
from resilience.settings import Settings
from resilience.tasks import Resilience
from resilience.tasks.task import ResilientTask

QUEUE = "crash"
JOB_SECONDS = 0.2


def make_app(broker: str, settings: Settings, diary: Diary) -> Celery:
    """Return the app with its task `work`."""
    app = Celery("crash", broker=broker, set_as_current=False)
    Resilience(app, dependencies=[Dependency(QUEUE, breaker=None)], settings=settings)

    @app.task(name="work", base=ResilientTask, dependency=QUEUE, shared=False, ignore_result=True)
    def work(job: int) -> None:
        diary.note("begun", job, worker=os.getppid())
        threading.Event().wait(JOB_SECONDS)
        diary.note("done", job, worker=os.getppid())

    return app


app = (
    make_app(
        os.environ["CELERY_BROKER_URL"],  # noqa: TID251 - an entry point
        Settings.from_environment(),
        Diary(Path(os.environ["DIARY"]), durable=True),  # noqa: TID251 - as above
    )
    if "DIARY" in os.environ  # noqa: TID251 - as above
    else None
)
