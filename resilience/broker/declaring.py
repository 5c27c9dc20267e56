"""Declares queues on an AMQP broker that may have others of these names."""

from typing import Any, Final

from amqp import spec
from amqp.exceptions import NotFound, PreconditionFailed, ResourceLocked

from resilience.broker.asking import given_up
from resilience.broker.quorum import dead_queue_behind
from resilience.errors import ConfigurationError

NEEDS_QUEUE: Final = (spec.Queue.Bind, spec.Basic.Consume)
"""What follows on a queue's declaration."""
INVALID: Final = "invalid arg"
"""What RabbitMQ says of an argument that no queue of this type can have."""
CONTROL: Final = ".pidbox"
"""How queues for remote control end: one belongs to a worker, and goes with it."""


class Declaring:
    """A channel that says what is in the way of a queue, or waits until it is gone."""

    connection: Any

    def queue_declare(self, queue: str = "", *args: Any, **options: Any) -> Any:  # noqa: ANN401 - py-amqp's
        """Declare *queue*, and before it the queue where its messages are set aside.

        RabbitMQ tries again only after minutes to set aside a message that no queue would take.

        Raises:
            ConfigurationError: There is one of that name, made otherwise, or none can be made so.
            RecoverableConnectionError: It is the control queue of a worker of the same name, which
                goes with that worker, of another release perhaps. The connection is closed.
        """
        channel: Any = self
        behind = dead_queue_behind(options.get("arguments"))
        if behind is not None and not options.get("passive"):
            behind(channel).declare()
        try:
            return super().queue_declare(queue, *args, **options)  # type: ignore[misc]
        except (PreconditionFailed, ResourceLocked) as error:
            if queue.endswith(CONTROL):
                why = f"another worker of this name has its queue {queue!r} still: {error}"
                raise given_up(self.connection, why) from error
            if isinstance(error, ResourceLocked):
                raise
            if INVALID in str(error):
                msg = (
                    f"the broker makes no queue {queue!r} as this app declares it ({error}). "
                    "Take the argument that it names out of the queue's `queue_arguments` in "
                    "`task_queues`, or give the queue another x-queue-type"
                )
                raise ConfigurationError(msg) from error
            msg = (
                f"the broker has a queue {queue!r} that was made otherwise than this app declares "
                f"it ({error}). Let its jobs end and delete it (rabbitmqctl delete_queue {queue}), "
                "or declare it as it is in `task_queues`"
            )
            raise ConfigurationError(msg) from error

    def _on_close(self, code: int, text: str, class_id: int, method_id: int) -> None:
        # A queue deleted just after it was declared would end Celery; a new connection declares it.
        try:
            super()._on_close(code, text, class_id, method_id)  # type: ignore[misc]
        except NotFound as error:
            if (class_id, method_id) not in NEEDS_QUEUE:
                raise
            raise given_up(self.connection, f"the queue is gone again: {error}") from error
