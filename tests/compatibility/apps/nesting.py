"""An adopted app under an instrument; workers, publishers and tests import `app`.

`python -m` publishes one job of each kind, and prints what became of it, as JSON. Where the servers
are is in variables of the environment.
"""

import json
import os
import sys
from datetime import timedelta
from threading import Event
from time import perf_counter
from typing import Any

import redis
from celery import Celery
from celery.beat import ScheduleEntry, Scheduler

from resilience import fallback
from resilience.dependency import Dependency
from resilience.ledger import Which
from resilience.retry import RetryPolicy
from resilience.settings import Settings
from resilience.tasks import FanOut, FireAndForgetTask, Resilience, ResilientTask, part
from resilience.testing.waiting import wait_until
from resilience.worker import request
from tests.compatibility.apps import instruments

ENV = os.environ  # noqa: TID251 - an entry point
QUEUES = ("celery", "users", "mail", "mail.retry")
BUDGET_SECONDS = 60.0
SHORT_SECONDS = 1.0
WAIT_SECONDS = 60

request.GRACE_SECONDS = WAIT_SECONDS  # a child that is late to cut its job is not killed meanwhile
instruments.switch_on()
app: Celery[Any] = Celery(
    "nesting", broker=ENV["BROKER_URL"], backend=ENV["DESK_URL"], set_as_current=False
)
Resilience(
    app,
    dependencies=[
        Dependency("users", timeout=5),
        Dependency(
            "mail",
            breaker=None,
            retry=RetryPolicy(max_attempts=2, base_seconds=0.05),
            retry_share=None,
        ),
    ],
    settings=Settings(
        store_url=ENV["DESK_URL"], store_timeout_seconds=2, ledger_url=ENV["LEDGER_URL"]
    ),
)


def desk() -> redis.Redis:
    """Return a client of the server where tasks and tests meet."""
    return redis.Redis.from_url(ENV["DESK_URL"], decode_responses=True)


@app.task(base=ResilientTask, dependency="users", name="echo", shared=False)
def echo(value: object) -> object:
    """Return *value*."""
    return value


@app.task(
    base=ResilientTask, dependency="users", name="stumble", bind=True, max_retries=1, shared=False
)
def stumble(self: Any) -> str:  # noqa: ANN401
    """Succeed in the second attempt."""
    if not self.request.retries:
        raise self.retry(countdown=0)
    return "recovered"


@app.task(base=ResilientTask, name="sleep", shared=False)
def sleep(seconds: float) -> None:
    """Sleep; the budget is shorter."""
    Event().wait(seconds)


@app.task(
    base=ResilientTask,
    dependency="users",
    name="answer",
    fallbacks=[fallback.static("known")],
    shared=False,
)
def answer() -> str:
    """Fail as a dependency that is away."""
    raise ConnectionError


@app.task(base=FireAndForgetTask, dependency="mail", name="refuse", bind=True, shared=False)
def refuse(self: Any, key: str) -> None:  # noqa: ANN401
    """Fail for good; tell how often it ran."""
    with desk() as client:
        client.rpush(key, self.request.retries)
    raise ConnectionError(key)


def _asked(*parts: Any) -> dict[str, Any]:  # noqa: ANN401 - signatures
    fan = FanOut(**{f"part{number}": part(sig, required=True) for number, sig in enumerate(parts)})
    began = perf_counter()
    response = fan.apply_async(budget=BUDGET_SECONDS).get()
    return {
        "data": response.data,
        "level": int(response.level),
        "seconds": perf_counter() - began,
    }


def fans_out() -> dict[str, Any]:
    """Ask for two parts that succeed."""
    return _asked(echo.s(1), echo.s(2))


def retries_a_part() -> dict[str, Any]:
    """Ask for a part whose second attempt succeeds."""
    return _asked(stumble.s())


def is_cut() -> dict[str, Any]:
    """Run longer than the budget."""
    began = perf_counter()
    result = sleep.apply_async((WAIT_SECONDS,), budget=SHORT_SECONDS)
    error = result.get(timeout=WAIT_SECONDS, propagate=False)
    return {"error": type(error).__name__, "seconds": perf_counter() - began}


def falls_back() -> dict[str, Any]:
    """Let a fallback answer."""
    outcome: Any = answer.delay().get(timeout=WAIT_SECONDS)
    return {"value": outcome.value, "level": int(outcome.level)}


def gives_up() -> dict[str, Any]:
    """Fail until the retry policy gives the job up; count how often it ran."""
    key = f"refused:{os.getpid()}"
    job = refuse.apply_async((key,)).id
    letters = Resilience.of(app).ledger.letters
    found = wait_until(lambda: letters.find(Which(id=job), limit=1), WAIT_SECONDS, "it is dead")
    with desk() as client:
        return {"attempts": found[0].attempts, "runs": client.llen(key)}


def is_due() -> dict[str, Any]:
    """Let beat publish a job, which Sentry adds headers of its own to."""
    key = f"beat:{os.getpid()}"
    scheduler = Scheduler(app=app, lazy=True)
    entry: Any = ScheduleEntry(
        name=key,
        task="stumble",
        app=app,
        schedule=timedelta(minutes=1),
        options={"budget": BUDGET_SECONDS, "task_id": key},
    )
    scheduler.apply_entry(entry)
    return {"value": app.AsyncResult(key).get(timeout=WAIT_SECONDS)}


KINDS = (fans_out, retries_a_part, is_cut, falls_back, gives_up, is_due)

if __name__ == "__main__":
    json.dump({kind.__name__: kind() for kind in KINDS}, sys.stdout)
