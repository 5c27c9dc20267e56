"""Keeps app-wide priorities off queues whose broker refuses them."""

from typing import Any

from resilience.text import get_logger

logger = get_logger("resilience")

QUEUE_TYPE, QUORUM = "x-queue-type", "quorum"


def without_priorities(base: type[Any]) -> type[Any]:
    """Return *base*, a class of Celery's queues, that leaves `x-max-priority` off quorum queues.

    Celery gives each queue the app's `task_queue_max_priority`, also those that it makes itself.
    RabbitMQ refuses to declare a quorum queue with it.
    """

    class Queues(base):  # type: ignore[misc] # whatever class of queues the app uses
        _warned = False

        def _set_max_priority(self, args: dict[str, Any]) -> None:
            if args.get(QUEUE_TYPE) != QUORUM:
                super()._set_max_priority(args)
                return
            if not self._warned:
                logger.warning(
                    "task_queue_max_priority=%s is left off quorum queues, which the queues of "
                    "dependencies are on RabbitMQ, which refuses x-max-priority for them. Use "
                    "lanes to run some jobs of a dependency before others, or define its queue in "
                    "task_queues as a classic one",
                    self.max_priority,
                )
                self._warned = True

    Queues.__name__ = base.__name__
    return Queues
