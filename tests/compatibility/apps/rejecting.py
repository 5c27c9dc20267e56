"""Two apps on RabbitMQ with the same tasks, one adopted and a plain one; workers import either.

Where the servers and the ledger are is in variables of the environment. No worker looks after what
the broker has set aside: tests do.
"""

import os
from typing import Any

import redis
from celery import Celery
from celery.exceptions import Reject

from resilience.dependency import Dependency
from resilience.settings import Settings
from resilience.tasks import FireAndForgetTask, Resilience, ResilientTask

ENV = os.environ  # noqa: TID251 - an entry point
QUEUES = ("users", "mail", "mail.retry")
PLAIN_QUEUE = "plain"
OPTIONS: dict[str, Any] = {
    "broker": ENV["BROKER_URL"],
    "backend": ENV["DESK_URL"],
    "set_as_current": False,
}

app: Celery[Any] = Celery("rejecting", **OPTIONS)
Resilience(
    app,
    dependencies=[Dependency("users", breaker=None), Dependency("mail", breaker=None)],
    settings=Settings(store_url=ENV["DESK_URL"], ledger_url=ENV["LEDGER_URL"]),
)
app.steps["worker"].discard("resilience.worker.undertaker:Undertaker")
plain: Celery[Any] = Celery("plain", **OPTIONS)
plain.conf.task_default_queue = PLAIN_QUEUE


def reject() -> None:
    """Want no more of the message."""
    text = "no more of this"
    raise Reject(text, requeue=False)


def fail() -> None:
    """Fail."""
    text = "away"
    raise ConnectionError(text)


def note(key: str) -> None:
    """Note that the job with this *key* ran."""
    with redis.Redis.from_url(ENV["DESK_URL"]) as client:
        client.rpush(key, os.getpid())


LATE: dict[str, Any] = {"acks_late": True}
"""As an adopted app has it for all its tasks."""
UNACKED: dict[str, Any] = {**LATE, "acks_on_failure_or_timeout": False}
for one, base, extra in (
    (app, ResilientTask, {"dependency": "users"}),
    (plain, plain.Task, {}),
):
    for name, body, how in (("reject", reject, LATE), ("fail", fail, UNACKED), ("note", note, {})):
        one.task(base=base, name=name, shared=False, **how, **extra)(body)
app.task(base=FireAndForgetTask, dependency="mail", name="reject_mail", shared=False)(reject)
app.task(base=FireAndForgetTask, dependency="mail", name="note_mail", shared=False)(note)
