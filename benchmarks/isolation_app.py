"""The app of the benchmark of isolation: adopted, or on one plain Celery pool."""

import threading
from pathlib import Path
from typing import Any

from celery import Celery

from benchmarks.diary import Diary
from resilience import BreakerPolicy, Dependency, Resilience, ResilientTask
from resilience.settings import Settings

OURS, PLAIN = "resilience", "celery"
NAMES = ("payments", "search", "users")
HANGING = NAMES[0]
"""The dependency that hangs when the file of that name is there."""
ANSWER_SECONDS = 0.02
CLIENT_SECONDS = 1.0
"""A client waits so long for an answer, on either side."""
CONCURRENCY = 2
BREAKER = BreakerPolicy(minimum_calls=4, open_seconds=1.0, open_seconds_max=1.0)


def make_app(style: str, url: str, home: Path) -> Celery:
    """Return an app with a task for each of `NAMES`.

    Args:
        style: `OURS`: a queue for each; `PLAIN`: one queue for all.
        url: Of the broker, and for ours of the store.
        home: For diary and ledger, and the file that lets one hang.
    """
    app = Celery("benchmarks", broker=url, set_as_current=False)
    if style == OURS:
        Resilience(
            app,
            dependencies=[
                Dependency(name, concurrency=CONCURRENCY, breaker=BREAKER) for name in NAMES
            ],
            settings=Settings(ledger_url=f"sqlite:///{home / 'ledger.sqlite3'}", store_url=url),
            listeners=[],
        )
    else:
        app.conf.update(task_default_queue=PLAIN)
    diary = Diary(home / f"diary-{style}")

    def call(name: str, number: int, due: float) -> None:
        hangs = name == HANGING and (home / HANGING).exists()
        threading.Event().wait(CLIENT_SECONDS if hangs else ANSWER_SECONDS)
        if hangs:
            raise TimeoutError(name)
        diary.note("done", number, name=name, due=due)

    for name in NAMES:
        options: dict[str, Any] = {"base": ResilientTask, "dependency": name}
        if style == PLAIN:
            options = {"queue": PLAIN}
        task: Any = app.task(name=name, shared=False, ignore_result=True, **options)
        task(call)
    return app
