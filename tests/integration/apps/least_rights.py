"""An adopted app that uses the broker, the results and the store in every way there is.

Where the servers are is in variables of the environment.
"""

from typing import Any

from celery import Celery

from resilience import (
    BreakerPolicy,
    Dependency,
    Feature,
    Level,
    Resilience,
    ResilientTask,
    SheddingPolicy,
    fallback,
)
from resilience.events import log_event
from resilience.monitor.prometheus import PrometheusListener
from resilience.retry import RetryPolicy
from resilience.tasks import FireAndForgetTask

QUEUES = ("celery", "bank", "mail", "mail.retry")
RETRY = RetryPolicy(max_attempts=3, base_seconds=0.05)

app: Celery[Any] = Celery("shop", set_as_current=False)
Resilience(
    app,
    dependencies=[
        Dependency("bank", breaker=BreakerPolicy(minimum_calls=4), slots=4, max_queue=1_000),
        Dependency("mail", retry=RETRY, on_open="hold"),
    ],
    features=[Feature("advice", level=Level.REDUCED, cost=0.05, depends_on=("bank",))],
    shedding=SheddingPolicy(load=None),
    listeners=[log_event, PrometheusListener()],
)


@app.task(
    base=ResilientTask,
    dependency="bank",
    name="pay",
    fallbacks=[fallback.stale(max_age=600), fallback.cached("rates"), fallback.static("none")],
    idempotency_key="{key}",
    shared=False,
)
def pay(key: str, *, fails: bool = False) -> str:
    """Answer, or fail."""
    if fails:
        raise ConnectionError(key)
    return key


@app.task(base=ResilientTask, dependency="bank", name="add", shared=False)
def add(numbers: list[int]) -> int:
    """Return the sum."""
    return sum(numbers)


@app.task(base=ResilientTask, dependency="bank", name="one", shared=False)
def one(number: int) -> int:
    """Return *number*."""
    return number


@app.task(name="note", shared=False, ignore_result=True)
def note(response: object) -> None:
    """Take the response of a finished fan-out."""


@app.task(base=FireAndForgetTask, dependency="mail", name="send", shared=False)
def send(*, fails: bool = False) -> None:
    """Succeed, or fail until nothing is left but a dead letter."""
    if fails:
        msg = "the mail server is away"
        raise ConnectionError(msg)
