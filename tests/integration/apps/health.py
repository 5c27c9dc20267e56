"""An app whose workers can be made sick."""

import threading
from typing import Any

from celery import Celery
from celery.worker.control import control_command

from resilience.broker.transports import on_rabbitmq
from resilience.dependency import Dependency
from resilience.tasks import Resilience

QUEUE = "mail"

app = Celery("health", set_as_current=False)
Resilience(app, dependencies=[Dependency(QUEUE, timeout=None)])


@app.task(name="take", shared=False, ignore_result=True)
def take(seconds: float) -> None:
    """Take so many seconds."""
    threading.Event().wait(seconds)


@control_command(args=[("seconds", float)])
def hang(_state: Any, seconds: float) -> None:  # noqa: ANN401 - Celery's
    """Block the event loop for so long."""
    threading.Event().wait(seconds)


@control_command()
def stall(state: Any) -> None:  # noqa: ANN401 - Celery's
    """Take no job any more, and say nothing of it, as after a reconnect that went wrong."""
    consumer = state.consumer.task_consumer
    if on_rabbitmq(state.app):
        for tag in consumer._active_tags.values():  # noqa: SLF001 - kombu forgets them with `cancel`
            consumer.channel.basic_cancel(tag, nowait=True)
    else:
        consumer.channel.qos.can_consume = lambda: False


@control_command()
def hold(state: Any) -> None:  # noqa: ANN401 - Celery's
    """Order that nobody takes jobs."""
    state.app.resilience.holds.hold(QUEUE, seconds=60.0, actor="somebody", reason="a test")
