"""An adopted app with one of everything that the Degradation page shows.

Where the servers and the ledger are is in variables of the environment.
"""

import os
from typing import Any

import redis
from celery import Celery

from resilience import (
    BreakerPolicy,
    Dependency,
    Feature,
    Level,
    Resilience,
    SheddingPolicy,
)
from resilience.fallback import static
from resilience.retry import RetryPolicy
from resilience.settings import Settings
from resilience.tasks import FireAndForgetTask, ResilientTask

ENV = os.environ  # noqa: TID251 - an entry point
QUEUES = ("celery", "ranking", "mail", "mail.retry")
BROKEN = "broken"
RAN = "ran"

app: Celery[Any] = Celery(
    "<b>shop</b>", broker=ENV["BROKER_URL"], backend=ENV["STORE_URL"], set_as_current=False
)
app.conf.worker_send_task_events = True
Resilience(
    app,
    dependencies=[
        Dependency(
            "ranking", breaker=BreakerPolicy(minimum_calls=3, open_seconds=60, open_seconds_max=60)
        ),
        Dependency("mail", breaker=None, retry=RetryPolicy(max_attempts=1), retry_share=None),
    ],
    features=[
        Feature("search.ranking", level=Level.REDUCED, cost=0.05, depends_on=("ranking",)),
        Feature("search.spelling", level=Level.STALE, cost=0.01),
    ],
    shedding=SheddingPolicy(load=None),  # a busy machine must shed nothing here
    settings=Settings(
        store_url=ENV["STORE_URL"], store_timeout_seconds=1, ledger_url=ENV["LEDGER_URL"]
    ),
)


def broken() -> bool:
    """Tell whether what the tasks call is down."""
    with redis.Redis.from_url(ENV["STORE_URL"]) as client:
        return bool(client.exists(BROKEN))


@app.task(
    base=ResilientTask, dependency="ranking", name="shop.rank", fallbacks=[static([])], shared=False
)
def rank() -> list[int]:
    """Answer with an empty list when ranking is down."""
    if broken():
        text = "ranking <script>alert(1)</script> is down"
        raise ConnectionError(text)
    return [1]


@app.task(base=FireAndForgetTask, dependency="mail", name="shop.deliver", shared=False)
def deliver(key: str, password: str = "") -> None:
    """Note in the hash `ran` that it ran, unless mail is down."""
    if broken():
        text = f"the mail server refused {password}"
        raise ConnectionError(text)
    with redis.Redis.from_url(ENV["STORE_URL"]) as client:
        client.hincrby(RAN, f"{key} {password}", 1)
