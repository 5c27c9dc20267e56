"""What a worker's main process does with a message before it becomes a job."""

from collections.abc import Callable
from typing import Any

from celery import Celery, Task
from celery.utils.imports import symbol_by_name
from celery.worker.strategy import default

from resilience.tasks.deadline import deadline_of
from resilience.tasks.resilience import Resilience


def drop_late(
    task: Task[Any, Any],
    app: Celery[Any],
    consumer: Any,  # noqa: ANN401 - Celery's
    **options: Any,  # noqa: ANN401 - Celery's
) -> Callable[..., Any]:
    """Handle messages as Celery's default strategy does, but drop those over their deadline.

    They never reach the pool.
    """
    handle: Callable[..., Any] = default(task, app, consumer, **options)
    resilience: Resilience | None = getattr(app, "resilience", None)
    if resilience is None:
        return handle
    resilience.time_limit_seconds = consumer.controller.time_limit
    request_class = symbol_by_name(task.Request)

    def on_message(
        message: Any,  # noqa: ANN401 - kombu's
        body: Any,  # noqa: ANN401
        ack: Callable[..., Any],
        reject: Callable[..., Any],
        callbacks: Any,  # noqa: ANN401
        **more: Any,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401
        deadline = deadline_of(message.headers)
        if deadline is None or body is not None or deadline.left(resilience.fleet_time()) > 0:
            return handle(message, body, ack, reject, callbacks, **more)
        request = request_class(
            message,
            on_ack=ack,
            on_reject=reject,
            app=app,
            hostname=consumer.hostname,
            eventer=consumer.event_dispatcher,
            task=task,
            connection_errors=consumer.connection_errors,
            body=message.body,
            headers=message.headers,
            decoded=False,
        )
        request.revoked()
        return None

    return on_message
