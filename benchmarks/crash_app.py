"""The app of the benchmark of killed workers: adopted, or plain Celery in one of its settings."""

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from celery import Celery

from benchmarks.diary import Diary
from resilience import Dependency, Resilience, ResilientTask
from resilience.settings import Settings

QUEUE = "crash"
LONG_QUEUE = "crash-long"
VISIBILITY_SECONDS = 5
OURS = "resilience"
VISIBILITY = "celery_acks_late_visibility_5"
PLAIN: Mapping[str, Mapping[str, Any]] = {
    "celery": {},
    "celery_acks_late": {"task_acks_late": True},
    VISIBILITY: {
        "task_acks_late": True,
        "broker_transport_options": {
            "visibility_timeout": VISIBILITY_SECONDS,
            "unacked_restore_interval": 1,
        },
    },
}
"""Plain Celery: as it comes, and with the settings that are to keep the jobs of the killed."""


def make_app(style: str, url: str, store_url: str, home: Path) -> Celery:
    """Return an app of that *style* with the tasks `work` and `work_long`.

    Args:
        style: `OURS` or one of `PLAIN`.
        url: Of the broker.
        store_url: Of the store; plain Celery has none.
        home: For diary and ledger.
    """
    app = Celery("benchmarks", broker=url, set_as_current=False)
    tasks: dict[str, Any] = {"work": QUEUE, "work_long": LONG_QUEUE}
    if style == OURS:
        Resilience(
            app,
            dependencies=[
                Dependency(queue, breaker=None, timeout=None) for queue in tasks.values()
            ],
            settings=Settings(
                store_url=store_url, ledger_url=f"sqlite:///{home / 'ledger.sqlite3'}"
            ),
            listeners=[],
        )
    else:
        app.conf.update(PLAIN[style])
    diary = Diary(home / "diary", durable=True)

    def work(number: int, seconds: float) -> None:
        diary.note("begun", number)
        threading.Event().wait(seconds)
        diary.note("done", number)

    for name, queue in tasks.items():
        options: dict[str, Any] = {"base": ResilientTask, "dependency": queue}
        if style != OURS:
            options = {"queue": queue}
        task: Any = app.task(name=name, shared=False, ignore_result=True, **options)
        task(work)
    return app
