"""Celery's consumer, but for what keeps it, or its jobs, waiting while a broker is away."""

import time
from types import SimpleNamespace
from typing import Any, ClassVar

from celery.exceptions import InvalidTaskError, NotRegistered
from celery.signals import task_rejected
from celery.worker.consumer import Consumer
from celery.worker.consumer.delayed_delivery import DelayedDelivery
from kombu.message import Message
from kombu.transport.native_delayed_delivery import (
    declare_native_delayed_delivery_exchanges_and_queues,
)
from kombu.utils import functional

from resilience.broker.unreadable import reason_of
from resilience.tasks.fire import UNKEPT_SECONDS
from resilience.tasks.resilience import Resilience
from resilience.text import get_logger
from resilience.worker.guard import OUTAGES, is_lost, set_aside
from resilience.worker.unknown import keep_unknown, report_unknown

logger = get_logger(__name__)

Base: Any = Consumer
Step: Any = DelayedDelivery


class DelayedDeliveryHere(Step):  # type: ignore[misc] # Celery has few types
    """Declares what native delayed delivery needs at the broker that the worker is connected to.

    Celery does so at every alternate, and waits 16 s for each that is away before it consumes.
    """

    def start(self, c: Any) -> None:  # noqa: ANN401 - Celery's
        """Declare it; without it the worker consumes all the same.

        Raises:
            Exception: The connection is lost.
        """
        self._validate_configuration(c.app)
        try:
            with c.connection.clone() as connection:
                kind = c.app.conf.broker_native_delayed_delivery_queue_type
                declare_native_delayed_delivery_exchanges_and_queues(connection, kind)
                self._bind_queues(c.app, connection)
        except c.connection_errors:
            raise
        except Exception:
            logger.exception("native delayed delivery cannot be set up")

    def _bind_queues(self, app: Any, connection: Any) -> None:  # noqa: ANN401 - as above
        """Bind the queues that it can deliver to; kombu warns of every other one at each start."""
        queues = {name: one for name, one in app.amqp.queues.items() if _can_be_delayed(one)}
        if queues:
            super()._bind_queues(SimpleNamespace(amqp=SimpleNamespace(queues=queues)), connection)


def _can_be_delayed(queue: Any) -> bool:  # noqa: ANN401 - kombu's
    """Tell whether jobs may reach *queue* by another way than a direct exchange."""
    return bool(queue.bindings) or queue.exchange.type != "direct"


class FailoverConsumer(Base):  # type: ignore[misc] # as above
    """Celery's consumer with that step in place of Celery's."""

    def __init__(self, *args: Any, **options: Any) -> None:  # noqa: ANN401 - Celery's
        """Create it.

        Kombu is imported before gevent patches `time.sleep`: its sleep between two attempts to
        connect would stop all jobs of the process.
        """
        super().__init__(*args, **options)
        if self.pool.is_green:
            kombu: Any = functional
            kombu.sleep = time.sleep  # noqa: TID251 - nobody sleeps here

    def create_task_handler(self, *args: Any, **options: Any) -> Any:  # noqa: ANN401 - Celery's
        """Return what takes a message: one that it fails on is set aside, and ends no worker."""
        handle: Any = super().create_task_handler(*args, **options)

        def handle_guarded(message: Message) -> None:
            try:
                handle(message)
            except Exception as error:
                if is_lost(error, self.connection_errors):
                    raise
                if isinstance(error, OUTAGES) and not message.acknowledged:
                    logger.warning("a message is put back: %s", reason_of(error))
                    self.timer.call_after(UNKEPT_SECONDS, message.requeue)
                else:
                    self._leave(message, error)

        return handle_guarded

    def on_decode_error(self, message: Message, exc: Exception) -> None:
        """Set a message aside that cannot be decoded."""
        self._leave(message, exc)

    def on_invalid_task(self, body: Any, message: Message, exc: Exception) -> None:  # noqa: ANN401, ARG002 - Celery's
        """Set a message aside that has no arguments, or that this worker may not decode."""
        self._leave(message, exc)
        task_rejected.send(sender=self, message=message, exc=exc)

    def on_unknown_message(self, body: Any, message: Message) -> None:  # noqa: ANN401, ARG002 - as above
        """Set a message aside that is no job."""
        self._leave(message, InvalidTaskError("it names no task"))
        task_rejected.send(sender=self, message=message, exc=None)

    def _leave(self, message: Message, error: Exception) -> None:
        if not set_aside(self.app, message, error):
            logger.error("a message that cannot be read is rejected", exc_info=error)
            if not message.acknowledged:
                message.reject_log_error(logger, self.connection_errors)

    def on_unknown_task(self, body: Any, message: Message, exc: Exception) -> None:  # noqa: ANN401 - Celery's
        """Drop a job that this worker does not know, as Celery does, unless it would be lost."""
        headers = message.headers or {}
        if "task" in headers and not isinstance(headers.get("id"), str):
            self.on_invalid_task(body, message, InvalidTaskError("its id is no text"))
            return
        resilience: Resilience | None = getattr(self.app, "resilience", None)
        if resilience is not None:
            error = NotRegistered((message.headers or {}).get("task"))
            if not keep_unknown(resilience, message, error):
                self.timer.call_after(UNKEPT_SECONDS, message.requeue)
                return
            report_unknown(resilience, message, error)
        super().on_unknown_task(body, message, exc)

    class Blueprint(Base.Blueprint):  # type: ignore[misc] # as above
        """The steps."""

        default_steps: ClassVar[list[Any]] = [
            DelayedDeliveryHere if str(step).endswith(f":{Step.__name__}") else step
            for step in Base.Blueprint.default_steps
        ]
