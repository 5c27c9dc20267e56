"""An app whose tasks retry by themselves, and a dependency that is away for a while."""

import os
import time
from typing import Any

import redis
from celery import Celery, Task

from resilience import BreakerPolicy, Dependency, Resilience, ResilientTask, fallback
from resilience.events import log_event

OPEN_SECONDS = 2.0
TIMEOUT_SECONDS = 0.3
SLOT_SECONDS = 2.0
RETRY = {"max_retries": 8, "countdown": 0.5}
UP_KEY = "outage:up"

app = Celery("outage")
policy = BreakerPolicy(minimum_calls=5, open_seconds=OPEN_SECONDS, open_seconds_max=OPEN_SECONDS)
Resilience(
    app,
    dependencies=[
        Dependency("alpha", breaker=policy, timeout=None),
        Dependency("beta", breaker=None, timeout=TIMEOUT_SECONDS),
        Dependency("gamma", breaker=None, timeout=SLOT_SECONDS, slots=1),
        Dependency("delta", breaker=policy, timeout=None),
    ],
    listeners=[log_event],
)


def store() -> Any:  # noqa: ANN401 - a client whose answers are of any kind
    """Return a client of the server that says whether the dependency is up."""
    return redis.Redis.from_url(os.environ["CELERY_RESULT_BACKEND"])  # noqa: TID251 - as an app


def note(task: Task[Any, Any], what: str) -> None:
    """Write down when a body ran, and as which attempt."""
    line = f"{what} {task.request.retries} {time.time()}"  # noqa: TID251 - of several processes
    with store() as client:
        client.rpush(f"outage:{task.request.id}", line)


def call(task: Task[Any, Any]) -> str:
    """Call the dependency, which refuses the connection while it is away."""
    with store() as client:
        up = client.get(UP_KEY)
    note(task, "call")
    if not up:
        msg = "connection refused"
        raise ConnectionError(msg)
    return "done"


@app.task(bind=True, shared=False, autoretry_for=(Exception,), retry_kwargs=RETRY)
def plain(self: Task[Any, Any]) -> str:
    """Call it from a task of Celery's own class."""
    return call(self)


@app.task(
    bind=True,
    shared=False,
    base=ResilientTask,
    dependency="alpha",
    autoretry_for=(Exception,),
    retry_kwargs=RETRY,
)
def guarded(self: Task[Any, Any]) -> str:
    """Call it under a breaker."""
    return call(self)


@app.task(
    bind=True,
    shared=False,
    base=ResilientTask,
    dependency="alpha",
    autoretry_for=(Exception,),
    dont_autoretry_for=(ConnectionError,),
    retry_backoff=1,
    retry_jitter=False,
    max_retries=8,
)
def backing_off(self: Task[Any, Any]) -> str:
    """Call it, and wait longer each time; its own failures end the job."""
    return call(self)


class Guarded(ResilientTask):
    """Call it from a task that is a class."""

    name = "tests.compatibility.apps.outage.class_based"
    shared = False
    dependency = "alpha"
    autoretry_for = (ConnectionError,)
    retry_kwargs = RETRY

    def run(self) -> str:
        """Call it."""
        return call(self)


class_based = app.register_task(Guarded())


@app.task(
    bind=True,
    shared=False,
    base=ResilientTask,
    dependency="alpha",
    autoretry_for=(Exception,),
    retry_kwargs={"max_retries": 0},
)
def once_only(self: Task[Any, Any]) -> str:
    """Call it, and never again."""
    return call(self)


@app.task(
    bind=True,
    shared=False,
    base=ResilientTask,
    dependency="beta",
    autoretry_for=(Exception,),
    retry_kwargs={"max_retries": 2, "countdown": 0.1},
)
def slow(self: Task[Any, Any], fast_at: int) -> str:
    """Take too long until attempt *fast_at*."""
    note(self, "call")
    if self.request.retries < fast_at:
        time.sleep(3 * TIMEOUT_SECONDS)  # noqa: TID251 - what is cut
    return "done"


@app.task(
    bind=True,
    shared=False,
    base=ResilientTask,
    dependency="gamma",
    autoretry_for=(Exception,),
    retry_kwargs={"max_retries": 2, "countdown": 0.1},
)
def crowded(self: Task[Any, Any]) -> str:
    """Hold the only slot of the dependency for most of the time that a call may take."""
    note(self, "call")
    time.sleep(0.6 * SLOT_SECONDS)  # noqa: TID251 - the work
    return "done"


@app.task(
    bind=True,
    shared=False,
    base=ResilientTask,
    dependency="delta",
    fallbacks=[fallback.cached("nothing")],
    autoretry_for=(Exception,),
    dont_autoretry_for=(ConnectionError,),
    retry_kwargs=RETRY,
)
def without_answer(self: Task[Any, Any]) -> str:
    """Call it, with a chain that has no answer."""
    return call(self)


class Prepared(ResilientTask):
    """Fail before the body begins."""

    name = "tests.compatibility.apps.outage.prepared"
    shared = False
    dependency = "beta"
    autoretry_for = (Exception,)
    retry_kwargs = RETRY

    def before_start(self, *_: object) -> None:
        """Fail, which Celery retries nobody for."""
        note(self, "before_start")
        msg = "not prepared"
        raise ValueError(msg)

    def run(self) -> None:
        """Do nothing."""


prepared = app.register_task(Prepared())
