"""An app whose tasks take and return models of pydantic, through all that Celery wraps around."""

import functools
import os
from collections.abc import Callable
from typing import Any

import redis
from celery import Celery, Task
from pydantic import BaseModel

from resilience import Dependency, Level, Outcome, Resilience, ResilientTask, fallback
from resilience.events import log_event

DOWN_KEY = "models:down"

app = Celery("models")
dependencies = [Dependency("alpha", timeout=5.0, breaker=None)]
Resilience(app, dependencies=dependencies, listeners=[log_event])


class Order(BaseModel):
    """What the tasks are given."""

    number: int
    note: str = "none"


class Receipt(BaseModel):
    """What they return."""

    number: int
    source: str


class Note(BaseModel):
    """What they do not return."""

    text: str


def call() -> None:
    """Call the dependency."""
    url = os.environ["CELERY_RESULT_BACKEND"]  # noqa: TID251 - as an app
    with redis.Redis.from_url(url) as client:
        client.incr("models:calls")
        if client.get(DOWN_KEY):
            msg = "connection refused"
            raise ConnectionError(msg)


def with_model(order: Order) -> Receipt:
    """Answer in the body's place, as the body does."""
    return Receipt(number=order.number + 1, source="call")


def with_outcome(order: Order) -> Outcome[Receipt]:
    """Answer, and say how good that is."""
    return Outcome(value=with_model(order), level=Level.STATIC, age=7.0)


def with_other_model(order: Order) -> Note:
    """Answer with a model of another class than the body's."""
    return Note(text=f"order {order.number}")


def with_nothing(order: Order) -> Receipt:
    """Have no answer; the next step has."""
    msg = f"no answer for {order.number}"
    raise ConnectionError(msg)


def traced(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate a body, as people do."""

    @functools.wraps(function)
    def call_traced(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as the function's
        return function(*args, **kwargs)

    return call_traced


def declare(*steps: fallback.Step, **options: Any) -> Callable[..., Any]:  # noqa: ANN401 - Celery's
    """Declare a task with models, a dependency and *steps*."""
    how = {"base": ResilientTask, "dependency": "alpha", "pydantic": True, "shared": False}
    decorate: Callable[..., Any] = app.task(**{**how, "fallbacks": steps, **options})
    return decorate


static = fallback.static(Receipt(number=0, source="static"))


@app.task(pydantic=True, shared=False)
def plain(order: Order) -> Receipt:
    """Take and return models, in a task of Celery's own class."""
    call()
    return Receipt(number=order.number + 1, source="body")


@declare(fallback.call(with_model), static)
def guarded(order: Order) -> Receipt:
    """Take and return models."""
    call()
    return Receipt(number=order.number + 1, source="body")


@declare(fallback.call(with_model), static, bind=True)
def bound(self: Task[Any, Any], order: Order) -> Receipt:
    """Do it in a task that is given itself."""
    call()
    assert self.request.id
    return Receipt(number=order.number + 1, source="body")


retrying = {"autoretry_for": (ConnectionError,), "max_retries": 1, "default_retry_delay": 0}


@declare(fallback.call(with_model), static, **retrying)
@traced
def wrapped(order: Order) -> Receipt:
    """Do it inside of all that wraps a body."""
    call()
    return Receipt(number=order.number + 1, source="body")


@declare(fallback.call(with_outcome), static)
def outcome(order: Order) -> Receipt:
    """Fall back to an outcome."""
    call()
    return Receipt(number=order.number + 1, source="body")


@declare(fallback.call(with_other_model), static)
def other(order: Order) -> Receipt:
    """Fall back to a model of another class."""
    call()
    return Receipt(number=order.number + 1, source="body")


@declare(fallback.call(with_nothing), static)
def to_static(order: Order) -> Receipt:
    """Fall back to a static model."""
    call()
    return Receipt(number=order.number + 1, source="body")


@declare(fallback.stale(max_age=600))
def stale(order: Order) -> Receipt:
    """Fall back to the last answer."""
    call()
    return Receipt(number=order.number + 1, source="body")


@declare(idempotency_key="order:{order}")
def once(order: Order) -> Receipt:
    """Run once for each order."""
    call()
    return Receipt(number=order.number + 1, source="body")


@declare(fallback.call(with_model), static, pydantic_strict=True)
def strict(order: Order) -> Receipt:
    """Take nothing that has to be converted."""
    call()
    return Receipt(number=order.number + 1, source="body")


@declare(fallback.stale(max_age=600))
def local(order: Order) -> Receipt:
    """Answer without the dependency."""
    return Receipt(number=order.number + 1, source="local")
