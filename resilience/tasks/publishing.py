"""Publishing that makes nobody late, and the errors it ends in."""

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import redis
from amqp.exceptions import AMQPError
from celery import Task
from celery._state import _task_stack, get_current_task  # type: ignore[attr-defined] # missing in the stubs
from celery.app.task import Context
from kombu.exceptions import (  # type: ignore[attr-defined] # newer than its stubs
    BatchPublishError,
    LimitExceeded,
    OperationalError,
)

from resilience.budget.threads import AbandonedError, carriers, helper_threads
from resilience.errors import TooManyAbandonedError

PUBLISH_ERRORS = (OperationalError, BatchPublishError, LimitExceeded, AMQPError, OSError)
"""What a publish ends in if the broker is at fault; another attempt may succeed."""
BROKER_ERRORS = (*PUBLISH_ERRORS, redis.RedisError, RuntimeError)
"""Those of a publish that also asks a Redis broker, or Celery's result backend: away, it says
RuntimeError."""


class PublishTimeoutError(OSError):
    """The broker did not take the messages in time."""


def publish_within(seconds: float, publish: Callable[[threading.Event], None]) -> bool:
    """Begin `publish(given_up)`, wait for it at most *seconds*, and return whether it ended.

    It ends by itself some time, as every wait for the broker is bounded. It may look at
    *given_up*, which is set when nobody waits for it any longer.

    Raises:
        PublishTimeoutError: Too many others that nobody waits for are under way.
        Exception: What *publish* raised.
    """
    given_up = threading.Event()
    try:
        helper_threads.run(lambda: publish(given_up), seconds, interrupt=False)
    except AbandonedError:
        return False
    except TooManyAbandonedError as error:
        msg = f"{error.calls} threads wait for the broker already"
        raise PublishTimeoutError(msg) from error
    else:
        return True
    finally:
        given_up.set()


def _current_job() -> AbstractContextManager[None]:
    """Bring the running job along into a helper thread: Celery keeps it by thread."""
    task: Task[Any, Any] | None = get_current_task()
    return _inside(task, None if task is None else task.request_stack.top)


@contextmanager
def _inside(task: Task[Any, Any] | None, request: Context | None) -> Iterator[None]:
    if task is None or request is None:
        yield
        return
    _task_stack.push(task)
    task.request_stack.push(request)
    try:
        yield
    finally:
        task.request_stack.pop()
        _task_stack.pop()


carriers.append(_current_job)
