"""An adopted app with one echo task of each class; workers and tests import `app`.

Where the servers are, and what serializers the app uses, is in variables of the environment.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import redis
from celery import Celery, signals
from celery.utils.time import maybe_make_aware
from dateutil.parser import isoparse

from resilience import fallback
from resilience.dependency import Dependency
from resilience.levels import Level
from resilience.partial import PartialResponse
from resilience.retry import RetryPolicy
from resilience.settings import Settings
from resilience.tasks import FireAndForgetTask, Resilience, ResilientTask
from tests.compatibility.apps.declared import DECLARED

ENV = os.environ  # noqa: TID251 - an entry point
QUEUES = ("celery", "bank", "bank.retry", "elsewhere")
POLICY = RetryPolicy(max_attempts=3, base_seconds=0.05)
LEASE_SECONDS = 60.0


@cache
def _client() -> redis.Redis:
    return redis.Redis.from_url(ENV["DESK_URL"], decode_responses=True)


@contextmanager
def desk() -> Iterator[redis.Redis]:
    """Yield the client of the server where tasks and tests meet."""
    yield _client()


def note(key: str, what: object) -> None:
    """Append *what* to the list *key* of the desk."""
    with desk() as client:
        client.rpush(key, json.dumps(what, default=repr))


app: Celery[Any] = Celery(
    "publishing", broker=ENV["BROKER_URL"], backend=ENV["DESK_URL"], set_as_current=False
)
app.conf.update(json.loads(ENV.get("APP_CONF", "{}")))
Resilience(
    app,
    dependencies=[Dependency("bank", breaker=None, retry=POLICY, retry_share=None, timeout=20)],
    settings=Settings(
        store_url=ENV["DESK_URL"],
        store_timeout_seconds=0.5,
        ledger_url=ENV["LEDGER_URL"],
        ledger_lease_seconds=LEASE_SECONDS,
    ),
)


@signals.task_received.connect(weak=False)
def note_received(request: Any = None, **_: object) -> None:  # noqa: ANN401 - Celery's
    """Note how the message of a job was written."""
    with desk() as client:
        client.rpush(f"received:{request.id}", request.content_type)


OWN_QUEUES = ("celery", "bank")
OWN_PROPERTIES = ("app_id", "user_id", "type", "message_id")


def _minutes(expires: str | None) -> int | None:
    """Return in how many minutes a job expires."""
    if expires is None:
        return None
    left = maybe_make_aware(isoparse(expires), app.timezone) - app.now()
    return round(left.total_seconds() / 60)


def _facts(task: Any) -> dict[str, Any]:  # noqa: ANN401 - any task class
    request = task.request
    where = request.delivery_info
    # What Celery computes from `expires` counts from the publish, which may have been later.
    own = OWN_PROPERTIES if request.expires else (*OWN_PROPERTIES, "expiration")
    return {
        "headers": {k: v for k, v in (request.headers or {}).items() if k.startswith("x-")},
        "properties": {k: v for k, v in request.properties.items() if k in own},
        "priority": where.get("priority") or 0,  # RabbitMQ takes none for 0
        "queue": "own" if where["routing_key"] in OWN_QUEUES else where["routing_key"],
        "minutes": _minutes(request.expires),
        "timelimit": list(request.timelimit or (None, None)),
        "stamps": request.stamps,
        "stamped": request.stamped_headers,
        "reply_to": request.reply_to,
        "shadow": request.shadow,
        "ignored": request.ignore_result,
        "callbacks": len(request.callbacks or ()),
        "errbacks": len(request.errbacks or ()),
        "retries": request.retries,
        "root": "own" if request.root_id == request.id else request.root_id,
        "hidden": request.argsrepr == "(hidden)",
        "hidden_too": request.kwargsrepr == "{hidden}",
        "parent": request.parent_id,
    }


def echo(self: Any, key: str, value: object = None) -> object:  # noqa: ANN401 - any task class
    """Note what the job came with, and return its value."""
    note(key, {"value": repr(value), **_facts(self)})
    return value


def fail(self: Any, key: str, value: object = None) -> object:  # noqa: ANN401 - any task class
    """Fail the first time; then as `echo`."""
    with desk() as client:
        times = client.incr(f"{key}:ran")
    if times == 1:
        raise ConnectionError(key)
    note(key, {"value": repr(value), **_facts(self)})
    return value


def fail_always(_: object, key: str, value: object = None) -> None:  # noqa: ARG001 - as `echo`
    """Fail."""
    raise ConnectionError(key)


def finish(_: object, response: PartialResponse, key: str) -> None:
    """Note the response of a fan-out."""
    note(key, {"level": int(response.level), "data": response.data})


def declare(name: str, body: Any, base: Any = None, **options: Any) -> Any:  # noqa: ANN401 - any class
    """Declare *body* as a task of the class *base*."""
    own = {} if base is None else {"base": base}
    return app.task(body, name=name, bind=True, shared=False, **own, **options)


plain = declare("plain", echo, ignore_result=False)
plain_ignored = declare("plain_ignored", echo, ignore_result=True)
resilient = declare("resilient", echo, ResilientTask, dependency="bank")
bare = declare("bare", echo, ResilientTask)
CHAIN = {"dependency": "bank", "fallbacks": [fallback.static("static", level=Level.STATIC)]}
chained = declare("chained", echo, ResilientTask, **CHAIN)
chained_broken = declare("chained_broken", fail_always, ResilientTask, **CHAIN)
fire = declare("fire", echo, FireAndForgetTask, dependency="bank")
fire_failing = declare("fire_failing", fail, FireAndForgetTask, dependency="bank")


def misuse(self: Any, key: str, value: object = None) -> None:  # noqa: ANN401, ARG001 - as `echo`
    """End in a bug."""
    raise TypeError(key)


fire_json = declare("fire_json", fail, FireAndForgetTask, dependency="bank", serializer="json")
last = declare("last", finish, ignore_result=True)
fire_buggy = declare("fire_buggy", misuse, FireAndForgetTask, dependency="bank")
LIMITED = {"expires": 3600, "time_limit": 90, "soft_time_limit": 80}
plain_limited = declare("plain_limited", echo, ignore_result=True, **LIMITED)
fire_limited = declare("fire_limited", echo, FireAndForgetTask, dependency="bank", **LIMITED)


def tell(self: Any, key: str, value: object = None) -> None:  # noqa: ANN401, ARG001 - as `echo`
    """Note the attributes of the task."""
    note(key, {name: repr(getattr(self, name)) for name in DECLARED})


plain_declared = declare("plain_declared", tell, **DECLARED)
resilient_declared = declare(
    "resilient_declared", tell, ResilientTask, dependency="bank", **DECLARED
)
fire_declared = declare("fire_declared", tell, FireAndForgetTask, dependency="bank", **DECLARED)

BEAT_SECONDS = 1
app.conf.beat_schedule = {
    task: {
        "task": task,
        "schedule": BEAT_SECONDS,
        "args": (f"{ENV.get('BEAT_KEY', '')}:{task}", 7),
        "options": {"retry": False, "expires": 600, "priority": 3, "headers": {"x-beat": True}},
    }
    for task in ("plain_ignored", "fire")
}
