"""An app with two bulkheads that work and one whose worker never gets up."""

import redis
from celery import Celery
from celery.signals import celeryd_init

from resilience.dependency import Dependency
from resilience.tasks.resilience import Resilience

USERS = Dependency("users", concurrency=1)
app = Celery("bulkheads")
Resilience(
    app,
    dependencies=[
        USERS,
        Dependency("payments", concurrency=2, pool="threads", prefetch=3, queue="money"),
        Dependency("broken", concurrency=1),
    ],
)


@app.task(shared=False, dependency="users")
def finish_when_told(started: str, finish: str) -> str:
    """Push to the list *started*, wait for something in the list *finish*, and return it."""
    # A client of its own: the backend's gives up waiting after a second.
    with redis.Redis.from_url(app.conf.result_backend, socket_timeout=60) as client:
        client.rpush(started, "started")
        _, told = client.blpop([finish], timeout=30)
        return str(told, "utf-8")


@celeryd_init.connect(weak=False)
def break_worker(sender: str, **_: object) -> None:
    """End the worker of the broken dependency before it consumes."""
    if sender.startswith("broken@"):
        raise SystemExit(70)
