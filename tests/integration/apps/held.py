"""An app whose dependency holds jobs while its circuit is open; workers and tests import `app`.

The dependency is a server of tests: it is down while the key `down` is there, and notes every call.
"""

import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import redis
from celery import Celery

from resilience import BreakerPolicy, Dependency, Outcome, ResilientTask, Settings, fallback
from resilience.bulkhead import AdaptiveConcurrency
from resilience.clock import SystemClock
from resilience.events import Event, log_event
from resilience.tasks import FireAndForgetTask, Resilience

ENV = os.environ  # noqa: TID251 - an entry point
CONCURRENCY = 8
CALL_SECONDS = 0.05
LONG_SECONDS = 3.0
"""Of a call that outlasts some steps of the ramp."""
SLOW_FROM = 3
"""So many calls at once the dependency `crowd` can do; more of them take longer, all alike."""
EVENTS = "events"
CALLS = "calls"
DOWN = "down"
POLICY = BreakerPolicy(
    minimum_calls=4,
    consecutive_failures=4,
    open_seconds=0.5,
    open_seconds_max=1.0,
    half_open_probes=2,
)


def desk() -> redis.Redis:
    """Return a client of the server where tasks and tests meet."""
    return redis.Redis.from_url(ENV["DESK_URL"], decode_responses=True, socket_timeout=10)


def witness(event: Event) -> None:
    """Log *event*, and tell the tests of it."""
    log_event(event)
    with desk() as client:
        client.rpush(EVENTS, json.dumps({"name": type(event).__name__, **event.details()}))


app: Celery[Any] = Celery(
    "held", broker=ENV["BROKER_URL"], backend=ENV["DESK_URL"], set_as_current=False
)
app.conf.worker_prefetch_multiplier = int(ENV.get("PREFETCH", "1"))
Resilience(
    app,
    dependencies=[
        Dependency("mail", on_open="hold", breaker=POLICY, concurrency=CONCURRENCY, timeout=20),
        Dependency("quick", breaker=POLICY),
        Dependency("crowd", concurrency=16, adaptive=AdaptiveConcurrency(measure_seconds=300)),
    ],
    settings=Settings(
        store_url=ENV["DESK_URL"],
        store_timeout_seconds=0.5,
        # A publish that takes longer may be done twice, and tests count what waits.
        publish_timeout_seconds=10,
        ledger_url=ENV["LEDGER_URL"],
    ),
    listeners=[witness],
)


@contextmanager
def noted(client: redis.Redis, key: str) -> Iterator[int]:
    """Note a call, and yield how many there are at once."""
    at_once = int(client.incr("at_once"))  # type: ignore[arg-type]
    client.rpush(CALLS, json.dumps([SystemClock.monotonic(), at_once, key]))
    try:
        yield at_once
    finally:
        client.decr("at_once")


def call(key: str, seconds: float = CALL_SECONDS) -> str:
    """Call the dependency.

    Raises:
        ConnectionError: It is down.
    """
    with desk() as client, noted(client, key):
        if client.get(DOWN):
            msg = "down"
            raise ConnectionError(msg)
        threading.Event().wait(seconds)
        client.rpush(f"done:{key}", "1")
    return key


@app.task(base=ResilientTask, dependency="mail", shared=False)
def send(key: str) -> str:
    """Call, and answer."""
    return call(key)


@app.task(base=ResilientTask, dependency="mail", fallbacks=[fallback.static("later")], shared=False)
def send_or(key: str) -> str:
    """Call; a static answer stands by."""
    return call(key)


@app.task(base=FireAndForgetTask, dependency="mail", shared=False)
def note(key: str) -> None:
    """Call; nobody waits."""
    call(key)


@app.task(base=FireAndForgetTask, dependency="mail", shared=False)
def linger(key: str) -> None:
    """Call, and wait long for the answer."""
    call(key, LONG_SECONDS)


@app.task(
    base=ResilientTask, dependency="quick", fallbacks=[fallback.static("at once")], shared=False
)
def quick(key: str) -> str:
    """Call a dependency that fails fast."""
    return call(key)


@app.task(base=ResilientTask, dependency="crowd", ignore_result=True, shared=False)
def crowd(key: str) -> None:
    """Call what slows down when there are many at once."""
    with desk() as client, noted(client, key) as at_once:
        threading.Event().wait(CALL_SECONDS * max(1.0, at_once / SLOW_FROM) ** 2)


@app.task(shared=False)
def plain(key: str) -> str:
    """Do nothing."""
    return key


def value(answer: object) -> object:
    """Return the value of an outcome."""
    return answer.value if isinstance(answer, Outcome) else answer
