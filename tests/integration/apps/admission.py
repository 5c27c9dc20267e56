"""An adopted app whose bulkheads take few jobs; workers and tests import `app`.

Where the servers are is in variables of the environment.
"""

import json
import os
from typing import Any

import redis
from celery import Celery

from resilience import fallback
from resilience.dependency import Dependency
from resilience.events import Event
from resilience.settings import Settings
from resilience.tasks import FireAndForgetTask, Resilience, ResilientTask

ENV = os.environ  # noqa: TID251 - an entry point
MOST = 10
EVENTS: list[Event] = []

app: Celery[Any] = Celery(
    "admission", broker=ENV["BROKER_URL"], backend=ENV["STORE_URL"], set_as_current=False
)
SHOP = Dependency("shop", max_queue=MOST, concurrency=1, timeout=1.0)
Resilience(
    app,
    dependencies=[SHOP, Dependency("free")],
    settings=Settings(
        store_url=ENV["STORE_URL"], store_timeout_seconds=2.0, ledger_url=ENV["LEDGER_URL"]
    ),
    listeners=[EVENTS.append],
)


def note(key: str, *words: object) -> None:
    """Tell the tests."""
    with redis.Redis.from_url(ENV["STORE_URL"]) as client:
        client.rpush(key, json.dumps(words))


@app.task(base=ResilientTask, dependency="shop", name="plain", shared=False)
def plain(*words: Any) -> list[Any]:  # noqa: ANN401 - any JSON
    """Return what it is given."""
    return list(words)


@app.task(
    base=ResilientTask,
    dependency="shop",
    name="designed",
    fallbacks=[fallback.static("instead")],
    shared=False,
)
def designed(*_: Any) -> str:  # noqa: ANN401 - any JSON
    """Have an answer for bad days."""
    return "really"


@app.task(base=FireAndForgetTask, dependency="shop", name="post", shared=False)
def post(key: str, word: str) -> None:
    """Say that it ran."""
    note(key, word)


@app.task(base=ResilientTask, dependency="shop", name="visit", shared=False)
def visit(key: str, word: str) -> str:
    """Say that it ran, and return the word."""
    note(key, word)
    return word


@app.task(base=ResilientTask, dependency="shop", name="again", bind=True, shared=False)
def again(self: Any, key: str) -> str:  # noqa: ANN401 - a task
    """Run once more, then let another task take its place."""
    note(key, f"run {self.request.retries}")
    if self.request.retries == 0:
        raise self.retry(countdown=0)
    return str(self.replace(visit.s(key, "instead")))


@app.task(base=ResilientTask, dependency="free", name="collect", shared=False)
def collect(key: str, said: Any) -> Any:  # noqa: ANN401 - any JSON
    """Say what came before it."""
    note(key, repr(said))
    return said


@app.task(base=ResilientTask, dependency="free", name="nested", shared=False)
def nested(word: str) -> str:
    """Publish new work from within a job."""
    plain.delay(word)
    return word
