"""An adopted app whose jobs fail for good while a switch is set; workers and tests import `app`.

Where the servers and the ledger are is in variables of the environment.
"""

import os
from typing import Any

import redis
from celery import Celery

from resilience.dependency import Dependency
from resilience.retry import RetryPolicy
from resilience.settings import Settings
from resilience.tasks import FireAndForgetTask, Resilience

ENV = os.environ  # noqa: TID251 - an entry point
QUEUES = ("celery", "mail", "mail.retry")
BROKEN = "broken"
RAN = "ran"

app: Celery[Any] = Celery(
    "letters", broker=ENV["BROKER_URL"], backend=ENV["STORE_URL"], set_as_current=False
)
Resilience(
    app,
    dependencies=[
        Dependency("mail", breaker=None, retry=RetryPolicy(max_attempts=1), retry_share=None)
    ],
    settings=Settings(
        store_url=ENV["STORE_URL"], store_timeout_seconds=5, ledger_url=ENV["LEDGER_URL"]
    ),
)


@app.task(base=FireAndForgetTask, dependency="mail", name="shop.deliver", shared=False)
def deliver(key: str, password: str = "") -> None:
    """Note in the hash `ran` that it ran, unless the switch `broken` is set."""
    with redis.Redis.from_url(ENV["STORE_URL"]) as client:
        if client.exists(BROKEN):
            text = f"the mail server refused {password}"
            raise ConnectionError(text)
        client.hincrby(RAN, key, 1)
