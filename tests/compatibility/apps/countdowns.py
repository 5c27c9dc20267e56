"""An app whose jobs have a countdown, and the same app without the library."""

import os
import time

import redis
from celery import Celery

from resilience import Dependency, Resilience, ResilientTask

ADOPTED = "adopted"
QUEUES = ("celery", "alpha", "beta")
"""Of plain tasks and of two dependencies."""
CONCURRENCY = 2

app = Celery("countdowns", set_as_current=False)
app.conf.task_default_queue = QUEUES[0]
if os.environ.get("APP_KIND") == ADOPTED:  # noqa: TID251 - as an app
    Resilience(app, dependencies=[Dependency(name) for name in QUEUES[1:]])


@app.task(shared=False)
def echo(value: int) -> int:
    """Return *value*."""
    return value


@app.task(shared=False)
def wait(key: str) -> None:
    """Note that it runs, and wait until the test says that it has seen enough."""
    with redis.Redis.from_url(os.environ["CELERY_RESULT_BACKEND"]) as desk:  # noqa: TID251 - as an app
        desk.rpush(f"{key}:began", 1)
        while not desk.exists(f"{key}:go"):
            time.sleep(0.05)  # noqa: TID251 - another process decides


if hasattr(app, "resilience"):

    @app.task(shared=False, base=ResilientTask, dependency="alpha", name="alpha.echo")
    def echo_alpha(value: int) -> int:
        """Return *value*, in a bulkhead."""
        return value

    @app.task(shared=False, base=ResilientTask, dependency="beta", name="beta.echo")
    def echo_beta(value: int) -> int:
        """Return *value*, in another bulkhead."""
        return value
