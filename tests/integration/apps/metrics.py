"""An app with metrics and an objective; workers, `resilience metrics` and tests import `app`."""

import os

from celery import Celery

from resilience import (
    Dependency,
    Feature,
    Level,
    Resilience,
    ResilientTask,
    SheddingPolicy,
    fallback,
)
from resilience.monitor.objective import Objective
from resilience.monitor.prometheus import PrometheusListener

ENV = os.environ  # noqa: TID251 - an entry point
QUEUES = ("users", "users.critical", "users.sheddable", "users.retry")

app = Celery(
    "metrics",
    broker=ENV.get("CELERY_BROKER_URL"),
    backend=ENV.get("CELERY_RESULT_BACKEND"),
    set_as_current=False,
)
listener = PrometheusListener(
    objectives=[Objective(full=0.75), Objective(full=0.9, task="metrics.rank")]
)
resilience = Resilience(
    app,
    dependencies=[Dependency("users", slots=20, breaker=None), Dependency("mail")],
    features=[Feature("ranking", level=Level.REDUCED)],
    shedding=SheddingPolicy(load=None),  # a busy machine must shed nothing here
    listeners=[listener],
)


def whose(**_: object) -> int:
    """Answer in the place of the dependency."""
    return os.getpid()


@app.task(
    base=ResilientTask,
    dependency="users",
    fallbacks=[fallback.call(whose, level=Level.REDUCED)],
    name="metrics.rank",
    shared=False,
)
def rank(*, broken: bool) -> int:
    """Return the process that ran it.

    Raises:
        ConnectionError: The dependency is *broken*.
    """
    if broken:
        msg = "refused"
        raise ConnectionError(msg)
    return os.getpid()


@app.task(base=ResilientTask, dependency="users", name="metrics.fail", shared=False)
def fail() -> None:
    """Raise what nothing answers.

    Raises:
        ConnectionError: Always.
    """
    msg = "refused"
    raise ConnectionError(msg)
