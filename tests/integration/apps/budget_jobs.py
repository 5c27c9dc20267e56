"""The app of parts.py, with tasks that tell how much time they have; workers import `app`."""

import json
import os
import signal
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from celery import Task, chain, chord, current_task, group
from celery.app.task import Context

from resilience.budget import TimeoutBudget, current_budget
from resilience.levels import Level
from resilience.outcome import Outcome
from resilience.tasks import FanOut, ResilientTask
from resilience.tasks.envelope import BUDGET_HEADER
from resilience.tasks.resilience import Resilience
from tests.integration.apps.parts import declare, desk, hold, make_app

PREFETCH_MULTIPLIER = 4
BLOCK_SECONDS = 0.5
"""A budget that a job gives to a part of its own work."""


def tell_of(request: Context, key: str) -> int:
    """Write down what the job with *request* knows of its budget; return how many have."""
    said = (request.headers or {}).get(BUDGET_HEADER)
    budget = current_budget()
    witness = {
        "task": request.task,
        "header": said,
        "left": None if budget is None else budget.remaining(),
        "timelimit": request.timelimit,
        "now": Resilience.of(current_task.app).fleet_time(),
        "pid": os.getpid(),
    }
    with desk() as client:
        told: int = client.rpush(key, json.dumps(witness))
    return told


def failure() -> ConnectionError:
    """Return what an unreachable service raises."""
    return ConnectionError("no service")


@declare(dependency="alpha", bind=True)
def tell(self: ResilientTask, *_: object, key: str) -> str:
    """Tell what it knows of its budget."""
    tell_of(self.request, key)
    return "told"


@declare(bind=True)
def tell_unbound(self: ResilientTask, *_: object, key: str) -> str:
    """Tell, in a job that calls no dependency."""
    tell_of(self.request, key)
    return "told"


@declare(bind=True, base=Task)
def tell_plain(self: Task[Any, Any], *_: object, key: str) -> str:
    """Tell, in a task of Celery's own class."""
    tell_of(self.request, key)
    return "told"


@declare(dependency="alpha", bind=True)
def tell_and_fail(self: ResilientTask, *_: object, key: str) -> None:
    """Tell, then fail."""
    tell_of(self.request, key)
    raise failure()


@declare(dependency="alpha", bind=True)
def tell_and_retry(
    self: ResilientTask, key: str, countdown: float = 0.0, *, block: bool = False
) -> str:
    """Tell, and run again once; *block*: out of a budget for a part of the work."""
    if tell_of(self.request, key) == 1:
        if not block:
            raise self.retry(countdown=countdown, exc=failure())
        with TimeoutBudget(BLOCK_SECONDS):
            raise self.retry(countdown=countdown, exc=failure())
    return "told"


@declare(dependency="alpha", bind=True)
def tell_and_retry_at(self: ResilientTask, key: str, seconds: float) -> str:
    """Tell, and run again once at a time of day without a zone, as Celery lets one say it."""
    if tell_of(self.request, key) == 1:
        now: datetime = self.app.now()
        raise self.retry(eta=now.replace(tzinfo=None) + timedelta(seconds=seconds), exc=failure())
    return "told"


@declare(bind=True, base=Task)
def tell_and_retry_plainly(self: Task[Any, Any], key: str) -> str:
    """Do it in a task of Celery's own class."""
    if tell_of(self.request, key) == 1:
        raise self.retry(countdown=0, exc=failure())
    return "told"


@declare(
    dependency="alpha", bind=True, autoretry_for=(ConnectionError,), retry_kwargs={"countdown": 0}
)
def tell_and_autoretry(self: ResilientTask, key: str) -> str:
    """Tell, and let Celery run it again once."""
    if tell_of(self.request, key) == 1:
        raise failure()
    return "told"


@declare(bind=True)
def tell_and_replace(self: ResilientTask, key: str, kind: str) -> None:
    """Tell, and let a canvas of *kind* answer."""
    tell_of(self.request, key)
    raise self.replace(canvas(self.app.tasks, kind, key))  # type: ignore[no-untyped-call]


@declare(bind=True)
def publish(self: ResilientTask, kind: str, key: str) -> None:
    """Publish a canvas of *kind*."""
    canvas(self.app.tasks, kind, key).apply_async()


@declare(bind=True)
def publish_freely(self: ResilientTask, key: str) -> None:
    """Publish a job that has all the time."""
    self.app.tasks["tell"].apply_async(kwargs={"key": key}, budget=None)


@declare(bind=True)
def publish_in_block(self: ResilientTask, kind: str, key: str) -> None:
    """Publish a canvas of *kind* out of a budget for a part of the work."""
    with TimeoutBudget(BLOCK_SECONDS):
        canvas(self.app.tasks, kind, key).apply_async()


@declare(bind=True)
def publish_by_name(self: ResilientTask, key: str) -> None:
    """Publish without any task at hand."""
    self.app.send_task("tell", kwargs={"key": key})


@declare(bind=True, base=Task)
def publish_plainly(self: Task[Any, Any], kind: str, key: str) -> None:
    """Publish a canvas of *kind* from a task of Celery's own class."""
    canvas(self.app.tasks, kind, key).apply_async()


@declare(dependency="beta", bind=True)
def fan_out(self: ResilientTask, key: str) -> None:
    """Ask others and wait for them."""
    told = self.app.tasks["tell"].s(key=key)
    FanOut(one=told, two=told).apply_async(budget=20.0).get()


@declare(dependency="beta")
def answer(*_: object) -> Outcome[str]:
    """Answer with an outcome, which says where the time went."""
    return Outcome(value="old", level=Level.STALE, reason="CircuitOpenError", age=7.0)


@declare(dependency="beta")
def hold_deaf(key: str) -> object:
    """Hold, where no alarm is heard: as in C code that never returns."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
    return hold(key, None)


def canvas(do: Any, kind: str, key: str) -> Any:  # noqa: ANN401 - any canvas of these tasks
    """Return a canvas, each job of which tells once under *key*."""
    told, plain, failing = (do[name].s(key=key) for name in ("tell", "tell_plain", "tell_and_fail"))
    made: dict[str, Callable[[], Any]] = {
        "task": lambda: told,
        "task without a dependency": lambda: do["tell_unbound"].s(key=key),
        "chain": lambda: chain(told, told, told),
        "chain through a plain task": lambda: chain(told, plain, told),
        "group": lambda: group(told, plain),
        "chord": lambda: chord([told, told], told),
        "chord of plain tasks": lambda: chord([told, plain], plain),
        "chain with a chord": lambda: chain(told, group(told, told), told),
        "link": lambda: _linked(do, key),
        "errback": lambda: failing.on_error(told),
        "chord's errback": lambda: chord([failing], told.clone().on_error(told)),
        "retry": lambda: do["tell_and_retry"].s(key),
        "autoretry": lambda: do["tell_and_autoretry"].s(key),
        "plain task's retry": lambda: do["tell_and_retry_plainly"].s(key),
        "replace": lambda: do["tell_and_replace"].s(key, "task"),
        "replace by a chain": lambda: do["tell_and_replace"].s(key, "chain"),
        "replace by a chord": lambda: do["tell_and_replace"].s(key, "chord"),
        "fan-out": lambda: do["fan_out"].s(key),
        "task by name": lambda: do["publish_by_name"].s(key),
        "chain of a plain publisher": lambda: chain(told, do["publish_plainly"].si("task", key)),
        "own smaller budget": lambda: told.set(budget=3.0),
        "own larger budget": lambda: told.set(budget=3000.0),
        "later in a chain": lambda: chain(told, told.clone().set(budget=3000.0)),
        "none": lambda: told.set(budget=None),
        "none later in a chain": lambda: chain(told, told.clone().set(budget=None)),
    }
    return made[kind]()


def _linked(do: Any, key: str) -> Any:  # noqa: ANN401 - as above
    first = do["tell"].s(key=key)
    first.link(do["tell"].s(key=key))
    return first


app = make_app()
app.conf.worker_prefetch_multiplier = PREFETCH_MULTIPLIER
