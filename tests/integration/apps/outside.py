"""An app whose queue anybody may write to; its workers and the tests import `app`."""

import hashlib
import json
import os
from typing import Any

import redis
from celery import Celery, signals

from resilience.dependency import Dependency
from resilience.events import Event
from resilience.retry import RetryPolicy
from resilience.settings import Settings
from resilience.tasks import FireAndForgetTask, Resilience, ResilientTask

ENV = os.environ  # noqa: TID251 - an entry point
QUEUE = "mail"
EVENTS, DONE, TAKEN, ENDED = "events", "done", "taken", "ended"


def name_of(message: bytes | str) -> str:
    """Return the name of a message: its id on RabbitMQ, a digest of it on Redis."""
    return message if isinstance(message, str) else hashlib.sha256(message).hexdigest()


def make_app(broker: str, desk: str, settings: Settings) -> Celery[Any]:
    """Return the app, whose jobs and workers leave notes at the *desk*.

    Good jobs note their keys in the list `done`. Workers note in `taken` each message that they
    take for a job, and in `ended` each job that they drop.
    """
    app = Celery("outside", broker=broker, backend=desk, set_as_current=False)

    def witness(event: Event) -> None:
        note(EVENTS, json.dumps({"name": type(event).__name__, **event.details()}, default=str))

    def note(key: str, text: str) -> None:
        with redis.Redis.from_url(desk) as client:
            client.rpush(key, text)

    def took(message: Any) -> None:  # noqa: ANN401 - kombu's
        note(TAKEN, name_of(message.properties.get("message_id") or message.raw))

    keep: dict[str, Any] = {"weak": False}
    signals.task_received.connect(lambda request, **_: took(request.message), **keep)
    signals.task_unknown.connect(lambda message, **_: took(message), **keep)
    signals.task_revoked.connect(lambda **_: note(ENDED, "revoked"), **keep)
    retry = RetryPolicy(max_attempts=2, base_seconds=0.05)
    Resilience(
        app,
        dependencies=[Dependency(QUEUE, retry=retry, timeout=20)],
        settings=settings,
        listeners=[witness],
    )

    @app.task(name="plain", shared=False)
    def plain(key: str) -> None:
        note(DONE, key)

    @app.task(name="resilient", base=ResilientTask, dependency=QUEUE, shared=False)
    def resilient(key: str) -> None:
        note(DONE, key)

    @app.task(name="fired", base=FireAndForgetTask, dependency=QUEUE, shared=False)
    def fired(key: str) -> None:
        note(DONE, key)

    return app


if "DESK_URL" in ENV:
    app = make_app(ENV["CELERY_BROKER_URL"], ENV["DESK_URL"], Settings.from_environment())
