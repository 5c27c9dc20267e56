"""An app in two halves: a front that only publishes, and workers, which have the tasks."""

import json
import os
import threading
from typing import Any

import redis
from celery import Celery

from resilience import (
    Dependency,
    FireAndForgetTask,
    Resilience,
    ResilientTask,
    RetryPolicy,
    Settings,
    TaskPattern,
)
from resilience.events import Event, Listener, log_event

ENV = os.environ  # noqa: TID251 - an entry point
RETRY = RetryPolicy(max_attempts=5, base_seconds=0.2, max_seconds=0.5)
QUEUES = [
    "celery",
    *("pay", "pay.critical", "pay.sheddable"),
    *("mail", "mail.critical", "mail.sheddable", "mail.retry"),
]
"""What the worker consumes from; nobody serves `narrow`."""


def dependencies(*, named: bool = True) -> list[Dependency]:
    """Return what both halves declare; *named*: also which tasks call it."""
    payments = ["app.pay.*", TaskPattern("app.pay.urgent", lane="critical")]
    mail = [TaskPattern("app.mail.*", fire_and_forget=True)]
    narrow = ["app.narrow.*", TaskPattern("app.narrow.mail", fire_and_forget=True)]
    return [
        Dependency("payments", queue="pay", tasks=payments if named else []),
        Dependency("mail", retry=RETRY, tasks=mail if named else []),
        Dependency("narrow", max_queue=2, tasks=narrow if named else []),
    ]


def make_app(
    urls: dict[str, str],
    *,
    named: bool = True,
    listener: Listener = log_event,
    **conf: Any,  # noqa: ANN401 - settings of Celery
) -> Celery[Any]:
    """Return the adopted app, without a task."""
    app: Celery[Any] = Celery(
        "split", broker=urls["BROKER"], backend=urls["DESK"], set_as_current=False
    )
    app.conf.update(conf)
    Resilience(
        app,
        dependencies=dependencies(named=named),
        settings=Settings(
            store_url=urls["DESK"], store_timeout_seconds=0.5, ledger_url=urls["LEDGER"]
        ),
        listeners=[listener],
    )
    return app


def add_tasks(app: Celery[Any], desk: redis.Redis) -> None:
    """Give *app* the code of its tasks."""

    def where(*_: object) -> str:
        return str(app.current_worker_task.request.delivery_info["routing_key"])

    def note(key: str, failures: int = 0) -> None:
        """Note the call; the first *failures* of them fail."""
        calls = desk.rpush(key, json.dumps([where(), app.current_worker_task.request.id]))
        if int(calls) <= failures:
            raise ConnectionError(key)

    def wait(key: str) -> None:
        desk.rpush(key, "began")
        threading.Event().wait(20)

    app.task(name="app.report", shared=False)(where)
    for name, lane in (("charge", "normal"), ("urgent", "critical")):
        app.task(
            name=f"app.pay.{name}",
            shared=False,
            base=ResilientTask,
            dependency="payments",
            lane=lane,
        )(where)
    app.task(name="app.pay.wait", shared=False, base=ResilientTask, dependency="payments")(wait)
    app.task(name="app.mail.send", shared=False, base=FireAndForgetTask, dependency="mail")(note)


def ignore(_: Event) -> None:
    """Tell nobody."""


if "SPLIT_DESK" in ENV:
    found = {name: ENV[f"SPLIT_{name}"] for name in ("BROKER", "DESK", "LEDGER")}
    app = make_app(found)
    add_tasks(app, redis.Redis.from_url(found["DESK"], socket_timeout=10))
