"""The queues of dependencies on RabbitMQ."""

from collections.abc import Mapping
from typing import Any, Final

from kombu import Queue

DELIVERY_LIMIT: Final = 20
"""A message that came back so often is set aside by the broker; the default of RabbitMQ 4."""
DEAD_DELIVERY_LIMIT: Final = 2**31 - 1
"""Who looks into the queue of what is set aside gives back what cannot be a letter yet: without a
limit of its own RabbitMQ 4 would drop it after the twentieth look."""
DEAD_SUFFIX: Final = ".dead"
"""What the broker sets aside goes to the queue's name and this."""
COUNT_HEADER: Final = "x-delivery-count"
"""How often the broker got a message of a quorum queue back, for whatever reason."""

REJECTED: Final = "rejected"
EXPIRED: Final = "expired"
RETURNED: Final = "delivery_limit"
"""Why the broker set a message aside: its consumer did not want it; nobody took it in time; it came
back too often. A policy that an operator sets may add `maxlen`."""

RETURNS_MAX: Final = 5
"""A job that came back so often without an end is poison. A lost worker counts, and so does a lost
connection: a job that runs for hours may live through some of those."""


def came_back_too_often(headers: Mapping[str, Any] | None) -> bool:
    """Tell whether the job with these *headers* seems to kill its workers.

    Only messages of quorum queues say so.
    """
    count = (headers or {}).get(COUNT_HEADER)
    return isinstance(count, int) and count >= RETURNS_MAX


def set_aside_because(headers: Mapping[str, Any] | None) -> str:
    """Return why the broker set the message with these *headers* aside, as `x-death` says.

    One that says nothing has come back too often: that is what the queues of dependencies are for.
    """
    deaths = (headers or {}).get("x-death")
    newest = deaths[0] if isinstance(deaths, list) and deaths else None
    reason = newest.get("reason") if isinstance(newest, Mapping) else None
    return reason if isinstance(reason, str) else RETURNED


def as_quorum(queue: Queue) -> Queue:
    """Return *queue* as one that outlives a broker, and that ends what comes back for ever."""
    return Queue(
        queue.name,
        queue.exchange,
        queue.routing_key,
        queue_arguments=_arguments(queue.name),
    )


def dead_queue_behind(arguments: Mapping[str, Any] | None) -> Queue | None:
    """Return where messages of a queue with these *arguments* are set aside, if we chose where."""
    given = arguments or {}
    key = str(given.get("x-dead-letter-routing-key", ""))
    name = key.removesuffix(DEAD_SUFFIX)
    return dead_queue(name) if _arguments(name).items() <= given.items() else None


def dead_queue(name: str) -> Queue:
    """Return where the broker sets aside what came back to the queue *name* too often."""
    return Queue(
        dead_name(name),
        routing_key=dead_name(name),
        queue_arguments={"x-queue-type": "quorum", "x-delivery-limit": DEAD_DELIVERY_LIMIT},
    )


def dead_name(name: str) -> str:
    """Return the name of that queue."""
    return f"{name}{DEAD_SUFFIX}"


def _arguments(name: str) -> dict[str, Any]:
    return {
        "x-queue-type": "quorum",
        "x-delivery-limit": DELIVERY_LIMIT,
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": dead_name(name),
        # It is kept until the other queue has it, and until there is one.
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
    }
