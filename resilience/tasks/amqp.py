"""Kombu's AMQP transport, but for the ways in which it loses a message or waits for ever.

Kombu can wait until the broker confirms a message. It waits for ever, takes the late confirmation
of one message for that of the next, waits for each of many by itself, and takes a message that
went to no queue for one that was taken. Here a wait is bounded; who has not heard in time closes
the connection, as what comes over it later is about nothing that anybody waits for.
"""

from collections.abc import Iterable
from typing import Any

from amqp.exceptions import (  # type: ignore[attr-defined] # missing in the stubs
    PreconditionFailed,
    RecoverableConnectionError,
)
from celery import Celery
from kombu.connection import (  # type: ignore[attr-defined] # missing in the stubs
    ConnectionPool,
    PooledConnection,
)
from kombu.transport import pyamqp

from resilience.clock import SystemClock
from resilience.errors import ConfigurationError

ANSWER_SECONDS = 10.0
"""A broker that has not answered for so long is gone. To declare a queue may take it seconds."""
PERSISTENT = 2


class Bounded:
    """Waits for an answer of the broker, but not for ever."""

    def wait(
        self, method: Any, callback: Any = None, timeout: float | None = None, **how: Any
    ) -> Any:  # noqa: ANN401 - py-amqp's
        """Wait for *method*, or one of them.

        Raises:
            RecoverableConnectionError: It did not come; the connection is closed.
        """
        connection = self.connection  # type: ignore[attr-defined]
        try:
            return super().wait(  # type: ignore[misc]
                method, callback, timeout=timeout or ANSWER_SECONDS, **how
            )
        except TimeoutError as error:
            raise _given_up(connection, "the broker did not answer in time") from error


class Batch:
    """Messages that are sent one behind the other, and confirmed together."""

    def __init__(self, channel: "ConfirmingChannel") -> None:
        """Begin one."""
        self.channel = channel
        self._tags: list[int] = []

    def publish(self, message: Any, **options: Any) -> None:  # noqa: ANN401 - py-amqp's
        """Send *message*; `flush` tells whether it was taken."""
        tag = self.channel.send(message, **options)
        if tag is not None:
            self._tags.append(tag)

    def flush(self) -> None:
        """Wait until all were confirmed.

        Raises:
            RecoverableConnectionError: Some were not, and nobody knows of the others.
        """
        tags, self._tags = self._tags, []
        self.channel.await_confirmed(tags)

    def discard(self) -> None:
        """Wait for none of them; those that were sent are sent."""
        self._tags.clear()

    close = discard


class ConfirmingChannel(Bounded, pyamqp.Channel):
    """A channel that knows of each persistent message whether the broker has it.

    Others, such as events, are sent as ever.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - py-amqp's
        self._sent = 0
        self._open: set[int] = set()
        self._refused = ""
        super().__init__(*args, **kwargs)

    @property
    def supports_batch_publish(self) -> bool:
        """Tell whether messages are confirmed."""
        return bool(self.connection.confirm_publish)

    def create_publish_batch(self, max_size: int) -> Batch:  # noqa: ARG002 - kombu's
        """Return a new batch, see `kombu.Producer.batch`."""
        return Batch(self)

    def basic_publish_confirm(self, message: Any, *args: Any, **options: Any) -> None:  # noqa: ANN401 - py-amqp's
        """Publish *message*, and wait until the broker has it.

        Raises:
            RecoverableConnectionError: It has not, or nobody knows.
        """
        seconds = options.get("confirm_timeout") or options.get("timeout")
        tag = self.send(message, *args, **options)
        if tag is not None:
            self.await_confirmed([tag], seconds)

    def send(self, message: Any, *args: Any, **options: Any) -> int | None:  # noqa: ANN401 - py-amqp's
        """Send *message*; return by which number it is confirmed, if it is to be."""
        options.pop("confirm_timeout", None)
        lasts = message.properties.get("delivery_mode") == PERSISTENT
        if not self._confirm_selected:
            if not lasts:
                self._basic_publish(message, *args, **options)
                return None
            self._begin_to_confirm()
        if lasts:
            options["mandatory"] = True  # the broker would confirm one that goes to no queue
        if self.connection.blocked:
            msg = "the broker takes no messages: it is short of memory or disk"
            raise RecoverableConnectionError(msg)
        self._basic_publish(message, *args, **options)
        self._sent += 1
        if not lasts:
            return None
        self._open.add(self._sent)
        return self._sent

    def await_confirmed(self, tags: Iterable[int], seconds: float | None = None) -> None:
        """Wait until the broker has said of all *tags* that it has them.

        Args:
            tags: From `send`.
            seconds: How long; by default as long as the connection waits for anything.

        Raises:
            RecoverableConnectionError: It has not, or nobody knows: the connection is closed then.
        """
        connection = self.connection
        if connection is None:
            msg = "the connection was lost before the broker confirmed a message"
            raise RecoverableConnectionError(msg)
        wanted = set(tags)
        until = SystemClock.monotonic() + (seconds or connection.answer_seconds)
        while wanted & self._open and not self._refused:
            left = until - SystemClock.monotonic()
            try:
                if left <= 0:
                    raise TimeoutError
                connection.drain_events(timeout=left)
            except TimeoutError as error:
                raise _given_up(connection, "the broker did not confirm in time") from error
        refused, self._refused = self._refused, ""
        if refused:
            raise _given_up(connection, refused)

    def queue_declare(self, queue: str = "", *args: Any, **options: Any) -> Any:  # noqa: ANN401 - py-amqp's
        """Declare *queue*.

        Raises:
            ConfigurationError: There is one of that name, made otherwise.
        """
        try:
            return super().queue_declare(queue, *args, **options)
        except PreconditionFailed as error:
            msg = (
                f"the broker has a queue {queue!r} that was made otherwise than this app declares "
                f"it ({error}). Let its jobs end and delete it (rabbitmqctl delete_queue {queue}), "
                "or declare it as it is in `task_queues`"
            )
            raise ConfigurationError(msg) from error

    def _begin_to_confirm(self) -> None:
        self._sent, self._refused = 0, ""
        self._open.clear()
        self.confirm_select()
        self._confirm_selected = True
        for event, listener in (
            ("basic_ack", self._on_confirmed),
            ("basic_nack", self._on_refused),
            ("basic_return", self._on_returned),
        ):
            self.events[event].discard(listener)
            self.events[event].add(listener)

    def _on_confirmed(self, tag: int, multiple: bool) -> None:  # noqa: FBT001 - py-amqp's
        self._open -= {one for one in self._open if one < tag} if multiple else set()
        self._open.discard(tag)

    def _on_refused(self, tag: int, multiple: bool) -> None:  # noqa: FBT001 - py-amqp's
        self._on_confirmed(tag, multiple)
        self._refused = "the broker refused a message"

    def _on_returned(self, error: Exception, exchange: str, key: str, _: object) -> None:
        self._refused = f"no queue takes messages to {exchange!r} {key!r}: {error}"


class BoundedConnection(Bounded, pyamqp.Connection):  # type: ignore[misc] # both have `wait`
    """A connection that gives up a broker which does not answer.

    Attributes:
        blocked: The broker takes no messages for now.
    """

    Channel = ConfirmingChannel
    blocked = False

    @property
    def answer_seconds(self) -> float:
        """How long to wait for a confirmation."""
        return float(self.read_timeout or ANSWER_SECONDS)

    def _on_blocked(self) -> None:
        self.blocked = True
        super()._on_blocked()

    def _on_unblocked(self) -> None:
        self.blocked = False
        super()._on_unblocked()


class ConfirmingTransport(pyamqp.Transport):
    """Kombu's, with such connections."""

    Connection = BoundedConnection


class ConfirmingSSLTransport(pyamqp.SSLTransport):
    """The same over TLS."""

    Connection = BoundedConnection


CONFIRMING = {
    pyamqp.Transport: ConfirmingTransport,
    pyamqp.SSLTransport: ConfirmingSSLTransport,
}


class Confirming:
    """A connection of kombu's whose transport is one of these."""

    def get_transport_cls(self) -> Any:  # noqa: ANN401 - a class
        """Return the transport; one that is nobody else's is replaced."""
        found: Any = super().get_transport_cls()  # type: ignore[misc]
        return CONFIRMING.get(found, found)


class ConfirmingPooled(Confirming, PooledConnection):  # type: ignore[misc] # no stubs
    """One of a pool."""


class ConfirmingPool(ConnectionPool):
    """A pool of those."""

    def new(self) -> Any:  # noqa: ANN401 - kombu's
        """Return one more."""
        return ConfirmingPooled(self, **dict(self.connection._info(resolve=False)))  # noqa: SLF001


def confirm_publishes(app: Celery[Any]) -> None:
    """Let *app* publish to an AMQP broker as this module says; other brokers are as they were."""
    amqp: Any = app.amqp
    base: Any = type(amqp)

    class Connection(Confirming, base.Connection):  # type: ignore[misc] # any class of connections
        def Pool(self, limit: int | None = None, **options: Any) -> Any:  # noqa: ANN401, N802 - kombu's
            if self.get_transport_cls() in CONFIRMING.values():
                return ConfirmingPool(self, limit, **options)
            return super().Pool(limit, **options)

    amqp.__class__ = type(base.__name__, (base,), {"Connection": Connection})


def _given_up(connection: Any, why: str) -> RecoverableConnectionError:  # noqa: ANN401 - py-amqp's
    """Close *connection* without asking, and return the error that says *why*."""
    client = getattr(connection, "client", None)
    if client is not None:
        client.declared_entities.clear()
    if connection is not None:
        connection.collect()
    return RecoverableConnectionError(why)
