"""The app of the benchmark of held jobs: each calls a dependency that notes how many do."""

import os
import threading
from functools import cache
from typing import Any

import redis
from celery import Celery

from resilience import BreakerPolicy, Dependency, Resilience, Settings
from resilience.clock import SystemClock
from resilience.tasks.fire import FireAndForgetTask

ENV = os.environ  # noqa: TID251 - an entry point
QUEUE = "held"
CONCURRENCY = 16
WORKERS = 2
CALL_SECONDS = 0.05
DOWN, CALLS, AT_ONCE, DONE = "down", "calls", "at_once", "done"


def desk() -> redis.Redis:
    """Return a client of the server that is the dependency, one per process."""
    return _client(ENV["DESK_URL"])


@cache
def _client(url: str) -> redis.Redis:
    return redis.Redis.from_url(url, decode_responses=True)


def make_app() -> Celery[Any]:
    """Return the app at the servers that the environment names."""
    made: Celery[Any] = Celery("hold", broker=ENV["BROKER_URL"], set_as_current=False)
    policy = BreakerPolicy(half_open_probes=5)
    Resilience(
        made,
        dependencies=[Dependency(QUEUE, on_open="hold", breaker=policy, concurrency=CONCURRENCY)],
        settings=Settings(
            ledger_url=ENV["LEDGER_URL"], store_url=ENV["DESK_URL"], store_timeout_seconds=0.5
        ),
    )
    made.task(name="call", base=FireAndForgetTask, dependency=QUEUE, shared=False)(call)
    return made


def call(number: int) -> None:
    """Call the dependency.

    Raises:
        ConnectionError: It is down.
    """
    client = desk()
    at_once = client.incr(AT_ONCE)
    try:
        client.rpush(CALLS, f"{SystemClock.monotonic()} {at_once} {number}")
        if client.get(DOWN):
            msg = "down"
            raise ConnectionError(msg)
        threading.Event().wait(CALL_SECONDS)
        client.hincrby(DONE, str(number), 1)
    finally:
        client.decr(AT_ONCE)
