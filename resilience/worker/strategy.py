"""What a worker's main process does with a message before it becomes a job."""

import functools
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from celery import Celery, Task
from celery.utils.imports import symbol_by_name
from celery.worker.strategy import default
from kombu.message import Message

from resilience.tasks.envelope import SLOT_HEADER, deadline_of
from resilience.tasks.fire import FireAndForgetTask
from resilience.tasks.resilience import Resilience
from resilience.worker.backlog import acknowledge, take_late
from resilience.worker.poison import bury, is_poison
from resilience.worker.request import ResilientRequest, drop
from resilience.worker.threads import use_job_threads

STRATEGY = f"{__name__}:drop_late"


def drop_late(
    task: Task[Any, Any],
    app: Celery[Any],
    consumer: Any,  # noqa: ANN401 - Celery's
    **options: Any,  # noqa: ANN401 - Celery's
) -> Callable[..., Any]:
    """Handle messages as Celery's default strategy does, but drop those over their deadline.

    They never reach the pool. Behind one that is late there are often more: they go with it.
    Nor does a job that has killed its workers.
    """
    resilience: Resilience | None = getattr(app, "resilience", None)
    if resilience is not None:
        use_job_threads(consumer.pool, resilience)
    handle: Callable[..., Any] = default(task, app, consumer, **options)
    if resilience is None or not _can_be_dropped(task):
        return handle
    resilience.time_limit_seconds = consumer.controller.time_limit
    droppable = [name for name, one in app.tasks.items() if _costs_little(one)]

    def on_message(
        message: Message,
        body: Any,  # noqa: ANN401 - kombu's
        ack: Callable[..., Any],
        reject: Callable[..., Any],
        callbacks: Any,  # noqa: ANN401
        **more: Any,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401
        if body is None and is_poison(message.headers):
            bury(_request(app, consumer, message, on_ack=ack, on_reject=reject), consumer.timer)
            return None
        if SLOT_HEADER in (message.headers or ()):
            resilience.note_part()
        deadline = deadline_of(message.headers)
        if deadline is None or body is not None or deadline.left(resilience.fleet_time()) > 0:
            return handle(message, body, ack, reject, callbacks, **more)
        late = [_request(app, consumer, message, on_ack=ack, on_reject=reject)]
        ended: list[Message] = []
        if task.name in droppable:
            late += _more(app, consumer, message, droppable, ended)
        drop(late, resilience.fleet_time())
        acknowledge(ended)
        return None

    return on_message


def _can_be_dropped(task: Task[Any, Any]) -> bool:
    """Tell whether the request of *task*, which an app may have replaced, knows how."""
    return issubclass(symbol_by_name(task.Request), ResilientRequest)


def _costs_little(task: Task[Any, Any]) -> bool:
    """Tell whether many jobs of *task* can be dropped at a time: none is written to a ledger."""
    kept = isinstance(task, FireAndForgetTask)
    return task.Strategy == STRATEGY and _can_be_dropped(task) and not kept


def _more(
    app: Celery[Any],
    consumer: Any,  # noqa: ANN401 - Celery's
    message: Message,
    droppable: list[str],
    ended: list[Message],
) -> list[ResilientRequest]:
    """Return the late jobs behind *message*; each that is acknowledged goes to *ended*."""
    late = []
    for one in take_late(message, droppable, Resilience.of(app).fleet_time()):
        on_ack = functools.partial(_append, ended, one)
        if deadline_of(one.headers) is not None:
            with suppress(Exception):  # whatever it is, Celery says so better
                how = {"on_ack": on_ack, "on_reject": one.reject_log_error}
                late.append(_request(app, consumer, one, **how))
                continue
        consumer.task_consumer.on_message(one)
    return late


def _append(ended: list[Message], message: Message, *_: object) -> None:
    ended.append(message)


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
