"""An app whose broker, results, store and ledger are reached over networks that may be bad."""

import os

import redis
from celery import Celery

from resilience import Dependency, FireAndForgetTask, Resilience, ResilientTask, RetryPolicy
from resilience.fallback import static

ENV = os.environ  # noqa: TID251 - an entry point
DONE = "done"

app = Celery("networked")
app.conf.update(broker_connection_timeout=1, task_default_queue="others")
if app.conf.broker_url.startswith("redis"):
    app.conf.broker_transport_options = {"visibility_timeout": 5}
Resilience(
    app,
    dependencies=[
        Dependency("notes", retry=RetryPolicy(base_seconds=0.2, max_seconds=1.0), timeout=5.0),
        Dependency("answers", timeout=1.0),
    ],
)


@app.task(shared=False, base=FireAndForgetTask, dependency="notes")
def note(key: str) -> None:
    """Note *key* in a place that is always reached."""
    with redis.Redis.from_url(ENV["DIARY_URL"]) as diary:
        diary.hincrby(DONE, key, 1)


@app.task(shared=False, base=ResilientTask, dependency="answers", fallbacks=[static(-1)])
def answer(number: int) -> int:
    """Return *number*."""
    return number
