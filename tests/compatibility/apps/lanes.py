"""An app that defines the queue of one lane itself; every task says which queue it came from."""

import os
from typing import Any

from celery import Celery
from kombu import Queue

from resilience import Dependency, Resilience, ResilientTask, Settings

ENV = os.environ  # noqa: TID251 - an entry point
DEFINED = "money.critical"
QUEUES = ["celery", "money.critical", "money", "money.sheddable", "money.retry", "users"]
app: Celery[Any] = Celery(
    "lanes", broker=ENV["LANES_BROKER"], backend=ENV["LANES_DESK"], set_as_current=False
)
app.conf.task_queues = [Queue("celery"), Queue(DEFINED)]
Resilience(
    app,
    dependencies=[Dependency("payments", queue="money"), Dependency("users")],
    settings=Settings(store_url=ENV["LANES_DESK"], store_timeout_seconds=0.5),
)


@app.task(name="pay", base=ResilientTask, dependency="payments", shared=False)
def pay() -> str:
    """Return the queue of the message."""
    return str(app.current_worker_task.request.delivery_info["routing_key"])


@app.task(name="user", base=ResilientTask, dependency="users", shared=False)
def user() -> str:
    """Return the queue of the message."""
    return str(app.current_worker_task.request.delivery_info["routing_key"])
