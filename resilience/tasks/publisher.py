"""Which app publishes: Celery's signals do not say, and the current app may be any of them."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from celery import Celery, Task
from celery._state import get_current_task

_publisher: ContextVar[Celery[Any] | None] = ContextVar("resilience_publisher", default=None)


def app_here() -> Celery[Any] | None:
    """Return the app whose job runs here, or else the adopted one that publishes; None: neither."""
    task: Task[Any, Any] | None = get_current_task()
    return _publisher.get() if task is None else task.app


def publishes(app: Celery[Any]) -> bool:
    """Tell whether *app*, which is adopted, publishes here, in whatever job."""
    return _publisher.get() is app


@contextmanager
def publishing(app: Celery[Any]) -> Iterator[None]:
    """Let receivers of Celery's signals know that *app* publishes."""
    token = _publisher.set(app)
    try:
        yield
    finally:
        _publisher.reset(token)
