"""An app whose fallback chains are drilled; workers, `resilience status` and tests import `app`."""

import os

import redis
from celery import Celery

from resilience import Dependency, Resilience, ResilientTask, fallback
from resilience.events import log_event
from resilience.monitor.prometheus import PrometheusListener

ENV = os.environ  # noqa: TID251 - an entry point
BEGUN, GO = "begun", "go"
"""Lists in the result store: a slow step adds to the first and waits for the second."""
STEP_SECONDS = 60
POPULAR = "popular"

app = Celery(
    "drills",
    broker=ENV.get("CELERY_BROKER_URL"),
    backend=ENV.get("CELERY_RESULT_BACKEND"),
    set_as_current=False,
)
resilience = Resilience(
    app,
    dependencies=[Dependency("catalogue", timeout=2.0 * STEP_SECONDS, breaker=None)],
    listeners=[log_event, PrometheusListener()],
)


@app.task(
    base=ResilientTask,
    dependency="catalogue",
    name="drills.recommend",
    fallbacks=[
        fallback.drill(share=0.01),
        fallback.stale(max_age=60),
        fallback.cached(POPULAR),
    ],
    shared=False,
)
def recommend(user: int) -> list[int]:
    """Return what the catalogue recommends to a user."""
    return [user]


def wait_for_go() -> str:
    """Answer when a test says so."""
    with redis.Redis.from_url(ENV["CELERY_RESULT_BACKEND"]) as client:
        client.rpush(BEGUN, 1)
        return str(client.blpop([GO], timeout=STEP_SECONDS))


@app.task(
    base=ResilientTask,
    dependency="catalogue",
    name="drills.rank",
    fallbacks=[fallback.drill(share=1), fallback.call(wait_for_go)],
    shared=False,
)
def rank() -> str:
    """Return an answer at once."""
    return "ranked"


def nested(user: int) -> list[int]:
    """Call the catalogue through a pipeline."""
    answer = resilience.pipeline(
        "catalogue", name="drills.nested", fallbacks=[fallback.drill(share=1), fallback.static([])]
    ).call(list[int], [user])
    return list(answer.value)


@app.task(name="drills.plain", shared=False)
def plain(user: int) -> list[int]:
    """Return the answer of a pipeline: a task that is none of the library's."""
    return nested(user)
