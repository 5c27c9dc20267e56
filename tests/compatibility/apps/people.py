"""An app that is configured as people do it: plain Celery, or adopted, and in several ways."""

import json
import os
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from celery import Celery, Task

from benchmarks.diary import Diary
from resilience.dependency import Dependency
from resilience.tasks import Resilience, ResilientTask

QUEUE = "payments"
PLAIN_QUEUE = "celery"


def adopt(app: Celery[Any]) -> None:
    """Adopt *app*, if the test wants it adopted."""
    if variable("ADOPTED", "1") == "1":
        Resilience(app, dependencies=[Dependency(QUEUE, timeout=None)])


def variable(name: str, default: str = "") -> str:
    """Return a variable of the environment."""
    return os.environ.get(name, default)  # noqa: TID251 - an entry point


def configured(how: str, url: str, settings: dict[str, Any]) -> Celery[Any]:
    """Return an app whose broker at *url* became known in the way *how*."""
    settings = {"broker_url": url, "result_backend": None, **settings}
    app: Celery[Any] = Celery("people", set_as_current=False)
    if how != "at once":
        adopt(app)
        assert app.conf.task_time_limit is None  # read once: Celery reads all settings
    CONFIGURE[how](app, settings)
    if how == "at once":
        adopt(app)
    return app


def _update(app: Celery[Any], settings: dict[str, Any]) -> None:
    app.conf.update(settings)


def _attributes(app: Celery[Any], settings: dict[str, Any]) -> None:
    for name, value in settings.items():
        setattr(app.conf, name, value)


def _object(app: Celery[Any], settings: dict[str, Any]) -> None:
    app.config_from_object(SimpleNamespace(**settings))


def _namespace(app: Celery[Any], settings: dict[str, Any]) -> None:
    named = {f"CELERY_{name.upper()}": value for name, value in settings.items()}
    app.config_from_object(SimpleNamespace(**named), namespace="CELERY")


def _twice(app: Celery[Any], settings: dict[str, Any]) -> None:
    other = "amqp://nowhere" if settings["broker_url"].startswith("redis") else "redis://nowhere"
    app.conf.update(broker_url=other)
    assert QUEUE in app.amqp.queues or app.amqp.queues[QUEUE]  # made for that broker
    app.conf.update(settings)


CONFIGURE = {
    "at once": _update,
    "update": _update,
    "attributes": _attributes,
    "object": _object,
    "namespace": _namespace,
    "twice": _twice,
}


def work(number: int, seconds: float) -> None:
    """Take *seconds*, and write down when job *number* begins and ends."""
    diary = Diary(Path(variable("DIARY")))
    diary.note("begun", number)
    threading.Event().wait(seconds)
    diary.note("done", number)


def make_app(how: str, url: str, settings: dict[str, Any] | None = None) -> Celery[Any]:
    """Return the app with its two tasks: `charge` of a dependency and `plain` of none."""
    app = configured(how, url, settings or {})
    app.task(work, name="plain", shared=False, ignore_result=True)
    if getattr(app, "resilience", None) is None:
        app.conf.task_routes = {"charge": {"queue": QUEUE}}
        app.task(work, name="charge", shared=False, ignore_result=True, base=Task)
    else:
        app.task(
            work,
            name="charge",
            shared=False,
            ignore_result=True,
            base=ResilientTask,
            dependency=QUEUE,
        )
    return app


def answers(url: str, calls: int) -> int:
    """Return how many of so many *calls* of remote control are answered.

    `python -m` prints it.
    """
    client = make_app("at once", url)
    found = [client.control.inspect(timeout=5, limit=1).ping() for _ in range(calls)]
    client.close()
    return sum(bool(one) for one in found)


if variable("BROKER"):
    app = make_app(
        variable("HOW", "at once"), variable("BROKER"), json.loads(variable("SETTINGS", "{}"))
    )

if __name__ == "__main__":
    print(answers(sys.argv[1], int(sys.argv[2])))  # noqa: T201 - what a client is asked for
