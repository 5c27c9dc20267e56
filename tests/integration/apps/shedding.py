"""An app with features; workers and tests import `app`.

Its dependencies are a server of tests: they are down while the key `down` is there.
"""

import json
import os
import threading
from pathlib import Path
from typing import Any

import redis
from celery import Celery

from resilience import (
    BreakerPolicy,
    Dependency,
    Feature,
    Level,
    Resilience,
    ResilientTask,
    Settings,
    SheddingPolicy,
    fallback,
)
from resilience.events import Event, log_event
from resilience.flags import reports

ENV = os.environ  # noqa: TID251 - an entry point
EVENTS = "events"
DOWN = "down"
MAX_QUEUE = 200
SLOW_SECONDS = 0.45
POLICY = BreakerPolicy(
    minimum_calls=4,
    consecutive_failures=4,
    open_seconds=0.5,
    open_seconds_max=1.0,
    half_open_probes=2,
)

if "PRESSURE" in ENV:
    reports.PRESSURE = Path(ENV["PRESSURE"])


def desk() -> redis.Redis:
    """Return a client of the server where tasks and tests meet."""
    return redis.Redis.from_url(ENV["DESK_URL"], decode_responses=True, socket_timeout=10)


def witness(event: Event) -> None:
    """Log *event*, and tell the tests of it, and who announces it."""
    log_event(event)
    said = {"name": type(event).__name__, "pid": os.getpid(), **event.details()}
    with desk() as client:
        client.rpush(EVENTS, json.dumps(said))


app: Celery[Any] = Celery(
    "shedding", broker=ENV["BROKER_URL"], backend=ENV["DESK_URL"], set_as_current=False
)
Resilience(
    app,
    dependencies=[
        Dependency("search", breaker=POLICY, max_queue=MAX_QUEUE),
        Dependency("slow", breaker=None, timeout=0.5),
    ],
    features=[
        Feature("ranking", level=Level.REDUCED, depends_on=("search",), cost=0.05),
        Feature("spelling", level=Level.STALE, depends_on=("search",), cost=0.01),
        Feature("history", level=Level.STALE, depends_on=("slow",)),
    ]
    if ENV.get("FEATURES") != "none"
    else [],
    shedding=SheddingPolicy(
        dwell_seconds=1, age_seconds=1, load=float(ENV["LOAD"]) if "LOAD" in ENV else None
    ),
    settings=Settings(
        store_url=ENV["DESK_URL"],
        store_timeout_seconds=0.5,
        ledger_url=ENV["RESILIENCE_LEDGER_URL"],
    ),
    listeners=[witness],
)


@app.task(
    base=ResilientTask,
    dependency="search",
    feature="ranking" if ENV.get("FEATURES") != "none" else None,
    fallbacks=[fallback.static("as they came", level=Level.REDUCED)],
    shared=False,
)
def rank() -> str:
    """Call the dependency.

    Raises:
        ConnectionError: It is down.
    """
    with desk() as client:
        if client.get(DOWN):
            msg = "down"
            raise ConnectionError(msg)
    return "best first"


@app.task(base=ResilientTask, dependency="slow", ignore_result=True, shared=False)
def crawl() -> None:
    """Take nearly as long as the dependency may."""
    threading.Event().wait(SLOW_SECONDS)
