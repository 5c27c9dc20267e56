"""What a worker's main process does with a message before it becomes a job."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from celery import Celery, Task
from celery.utils.imports import symbol_by_name
from celery.worker.strategy import default
from kombu.message import Message

from resilience.tasks.deadline import deadline_of
from resilience.tasks.resilience import Resilience
from resilience.worker.backlog import acknowledge, take_late
from resilience.worker.request import ResilientRequest, drop

STRATEGY = f"{__name__}:drop_late"


def drop_late(
    task: Task[Any, Any],
    app: Celery[Any],
    consumer: Any,  # noqa: ANN401 - Celery's
    **options: Any,  # noqa: ANN401 - Celery's
) -> Callable[..., Any]:
    """Handle messages as Celery's default strategy does, but drop those over their deadline.

    They never reach the pool. Behind one that is late there are often more: they go with it.
    """
    handle: Callable[..., Any] = default(task, app, consumer, **options)
    resilience: Resilience | None = getattr(app, "resilience", None)
    if resilience is None:
        return handle
    resilience.time_limit_seconds = consumer.controller.time_limit
    droppable = [name for name, one in app.tasks.items() if one.Strategy == STRATEGY]

    def on_message(
        message: Message,
        body: Any,  # noqa: ANN401 - kombu's
        ack: Callable[..., Any],
        reject: Callable[..., Any],
        callbacks: Any,  # noqa: ANN401
        **more: Any,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401
        deadline = deadline_of(message.headers)
        if deadline is None or body is not None or deadline.left(resilience.fleet_time()) > 0:
            return handle(message, body, ack, reject, callbacks, **more)
        late = [_request(app, consumer, message, on_ack=ack, on_reject=reject)]
        others = _more(app, consumer, message, droppable, resilience.fleet_time())
        drop([*late, *others], resilience.fleet_time())
        acknowledge([one.message for one in others])
        return None

    return on_message


def _more(
    app: Celery[Any],
    consumer: Any,  # noqa: ANN401 - Celery's
    message: Message,
    droppable: list[str],
    now: float,
) -> list[ResilientRequest]:
    """Return the late jobs behind *message*, none of which acknowledges itself."""
    late = []
    for one in take_late(message, droppable, now):
        if deadline_of(one.headers) is not None:
            with suppress(Exception):  # whatever it is, Celery says so better
                late.append(_request(app, consumer, one))
                continue
        consumer.task_consumer.on_message(one)
    return late


def _request(
    app: Celery[Any],
    consumer: Any,  # noqa: ANN401 - Celery's
    message: Message,
    **options: Any,  # noqa: ANN401 - as of Request
) -> ResilientRequest:
    task = app.tasks[message.headers["task"]]
    made: ResilientRequest = symbol_by_name(task.Request)(
        message,
        app=app,
        hostname=consumer.hostname,
        eventer=consumer.event_dispatcher,
        task=task,
        connection_errors=consumer.connection_errors,
        body=message.body,
        headers=message.headers,
        decoded=False,
        **options,
    )
    return made
