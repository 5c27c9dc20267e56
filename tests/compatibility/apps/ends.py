"""An adopted app whose jobs are ended from outside; workers and tests import `app`.

Where the servers and the ledger are is in variables of the environment.
"""

import os
from typing import Any

import redis
from celery import Celery

from resilience.dependency import Dependency
from resilience.retry import RetryPolicy
from resilience.settings import Settings
from resilience.tasks import FireAndForgetTask, Resilience, ResilientTask

ENV = os.environ  # noqa: TID251 - an entry point
QUEUES = ("celery", "users", "mail", "mail.retry")
HOLD_SECONDS = 20

app: Celery[Any] = Celery(
    "ends", broker=ENV["BROKER_URL"], backend=ENV["DESK_URL"], set_as_current=False
)
Resilience(
    app,
    dependencies=[
        Dependency("users", breaker=None, timeout=HOLD_SECONDS),
        Dependency(
            "mail",
            breaker=None,
            retry=RetryPolicy(max_attempts=9, base_seconds=0.1),
            retry_share=None,
        ),
    ],
    settings=Settings(
        store_url=ENV["DESK_URL"],
        store_timeout_seconds=2,
        ledger_url=ENV["LEDGER_URL"],
        ledger_lease_seconds=4,
    ),
)


class AwayError(ConnectionError):
    """The dependency is away, and says how long."""

    retry_after = 4.0


def hold(key: str) -> None:
    """Note that the job with this *key* runs, and wait until it is told to go on."""
    with redis.Redis.from_url(ENV["DESK_URL"], socket_timeout=2 * HOLD_SECONDS) as client:
        client.rpush(f"{key}:ran", os.getpid())
        client.blpop([f"{key}:go"], timeout=HOLD_SECONDS)


@app.task(base=FireAndForgetTask, dependency="mail", name="held_mail", shared=False)
def held_mail(key: str) -> None:
    """Run until told to go on."""
    hold(key)


@app.task(base=FireAndForgetTask, dependency="mail", name="failing_mail", shared=False)
def failing_mail(key: str) -> None:
    """Note that the job runs, and fail."""
    with redis.Redis.from_url(ENV["DESK_URL"]) as client:
        client.rpush(f"{key}:ran", os.getpid())
    raise AwayError(key)


@app.task(base=ResilientTask, dependency="users", name="held", shared=False)
def held(key: str) -> None:
    """Run until told to go on."""
    hold(key)
