"""The message that Celery would publish for a call, taken before it reaches a broker."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from celery import Celery, Task
from kombu import Queue

from resilience.errors import ConfigurationError

CONNECTIONS = ("producer", "publisher", "connection")
"""Options that say through which connection a caller wants to publish."""


@dataclass(frozen=True, slots=True)
class Captured:
    """A message and its destination.

    Attributes:
        body: Arguments, keyword arguments and what follows the job.
        headers: As published.
        properties: As published, all of them known to JSON.
        queue: Name of the queue that gets it.
        routing_key: What it is published with if the queue's exchange is not direct.
    """

    body: Any
    headers: dict[str, Any]
    properties: dict[str, Any]
    queue: str
    routing_key: str | None


@dataclass(slots=True)
class _Connection:
    """Raises no errors of a broker."""

    def _reraise_as_library_errors(self) -> AbstractContextManager[None]:
        return nullcontext()


@dataclass(slots=True)
class _Producer:
    """Takes the place of kombu's producer."""

    connection: _Connection = field(default_factory=_Connection)
    sent: tuple[Any, dict[str, Any]] | None = None

    def publish(self, body: Any, **options: Any) -> None:  # noqa: ANN401 - kombu's
        if self.sent is None:  # Celery's `task-sent` event may follow
            self.sent = body, options


def capture(
    task: Task[Any, Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    options: dict[str, Any],
) -> Captured:
    """Return the message that `Task.apply_async` of Celery would publish.

    Celery makes it itself: it checks the arguments, takes the options that the task declares,
    routes the message and calls whoever listens to its signals.

    Args:
        task: What is called.
        args: As given.
        kwargs: As given.
        options: Of `apply_async`.

    Raises:
        TypeError: The task does not take these arguments.
        ConfigurationError: The message would go to an exchange of no queue that the app knows.
    """
    producer: Any = _Producer()
    own = {name: value for name, value in options.items() if name not in CONNECTIONS}
    ignored = own.pop("ignore_result", task.ignore_result)
    # A job that is not published yet must not make its backend wait for the result.
    own |= {"ignore_result": True, "producer": producer}
    Task.apply_async(task, args, kwargs, **own)
    body, sent = producer.sent
    headers, properties = sent.pop("headers"), _properties(sent)
    headers["ignore_result"] = ignored
    if headers.get("expires") is not None:
        properties.pop("expiration", None)  # it would count again from each later publish
    queue, routing_key = _destination(task, sent)
    return Captured(body, headers, properties, queue, routing_key)


NOT_PROPERTIES = frozenset(
    {
        "exchange",
        "routing_key",
        "serializer",
        "retry",
        "retry_policy",
        "declare",
        "timeout",
        "confirm_timeout",
        # These two ask for an answer to this very publish.
        "mandatory",
        "immediate",
    }
)


def _properties(sent: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value
        for name, value in sent.items()
        if name not in NOT_PROPERTIES and value is not None
    }


def _destination(task: Task[Any, Any], sent: dict[str, Any]) -> tuple[str, str | None]:
    """Return the queue that the message goes to, and the routing key for its exchange."""
    exchange, routing_key = sent["exchange"], sent["routing_key"]
    name = getattr(exchange, "name", exchange)
    if not name:
        check_queue(task.app, routing_key, where=f"task {task.name}")
        return routing_key, None
    queue = queue_behind(task.app, name, routing_key, sent.get("declare") or ())
    if queue is None:
        msg = (
            f"task {task.name}: exchange {name!r} with routing key {routing_key!r} leads to no "
            "queue that the app knows, and the ledger publishes to queues; add one to task_queues "
            "or name a queue in its place"
        )
        raise ConfigurationError(msg)
    return queue.name, None if queue.exchange.type == "direct" else routing_key


def check_queue(app: Celery[Any], name: str, *, where: str) -> None:
    """Check that *app* knows the queue *name*, or makes it.

    Raises:
        ConfigurationError: It does not.
    """
    try:
        app.amqp.queues[name]
    except KeyError as error:
        msg = f"{where}: queue {name!r} is missing in task_queues"
        raise ConfigurationError(msg) from error


def queue_behind(app: Celery[Any], exchange: str, routing_key: str, first: Any) -> Any:  # noqa: ANN401 - kombu's
    """Return the queue that a message to *exchange* reaches; None: none that *app* knows."""
    for queue in (*first, *app.amqp.queues.values()):
        if not isinstance(queue, Queue) or queue.exchange.name != exchange:
            continue
        if queue.exchange.type != "direct" or queue.routing_key == routing_key:
            return queue
    return None
