"""Publishes to an AMQP broker, and hears whether it has the message.

Kombu can wait until the broker confirms a message. It waits for ever, takes the late confirmation
of one message for that of the next, waits for each of many by itself, and takes a message that
went to no queue for one that was taken. Here a wait is bounded; who has not heard in time closes
the connection, as what comes over it later is about nothing that anybody waits for.
"""

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import amqp
from amqp.exceptions import RecoverableConnectionError
from kombu.transport import pyamqp

from resilience.broker.asking import Bounded, given_up
from resilience.broker.declaring import Declaring
from resilience.broker.quorum import COUNT_HEADER
from resilience.broker.unreadable import UNREADABLE_HEADER, unreadable_name
from resilience.clock import SystemClock

PERSISTENT = 2
TO_WORKERS = ".pidbox"
"""So ends the name of the exchange of remote control."""


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


class Message(pyamqp.Message):
    """A message that may be handed back any number of times.

    The broker counts how often it gets a message of a quorum queue back, and ends one that comes
    back for ever: it has killed its workers. Whoever hands one back on purpose has it count as new,
    at the end of its queue.
    """

    channel: Any
    acknowledged: bool
    delivery_tag: Any

    def __init__(self, msg: Any, channel: Any = None, **kwargs: Any) -> None:  # noqa: ANN401 - kombu's
        self.raw = msg.body  # as it came: kombu decompresses the other one
        super().__init__(msg, channel=channel, **kwargs)

    @property
    def queue(self) -> str:
        """The queue that it was taken from; empty if it is an order, which nobody acknowledges."""
        info: Any = self.delivery_info or {}
        return str(self.channel.consumed.get(info.get("consumer_tag"), ""))

    def set_aside(self, reason: str) -> None:
        """Move the message to where those are that cannot be read, with the *reason*."""
        if not self.queue:
            return
        name = unreadable_name(self.queue)
        self.channel.queue_declare(name, durable=True, auto_delete=False, nowait=True)
        why = {"reason": reason, "time": int(SystemClock.now())}
        copy = self._copy({**self.headers, UNREADABLE_HEADER: why}, delivery_mode=PERSISTENT)
        if self.acknowledged:
            self.channel.send(copy, exchange="", routing_key=name)
            return
        self.channel.send_then(copy, name, functools.partial(self._settle, self.channel))
        self._state = "ACK"

    def _copy(self, headers: Mapping[str, Any], **more: Any) -> amqp.Message:  # noqa: ANN401 - properties
        return amqp.Message(
            self.raw or b"", **{**self.properties, "application_headers": headers, **more}
        )

    def reject(self, requeue: bool = False) -> None:  # noqa: FBT001, FBT002 - kombu's
        """Reject the message; with *requeue* it is handed back."""
        info = self.delivery_info or {}
        by_name = not info.get("exchange") and info.get("routing_key")
        if not requeue or self.acknowledged or not by_name or COUNT_HEADER not in self.headers:
            super().reject(requeue=requeue)
            return
        headers = {name: said for name, said in self.headers.items() if name != COUNT_HEADER}
        settle = functools.partial(self._settle, self.channel)
        self.channel.send_then(self._copy(headers), str(by_name), settle)
        self._state = "REQUEUED"

    def _settle(self, channel: "ConfirmingChannel", taken: bool) -> None:  # noqa: FBT001
        if taken:
            channel.basic_ack(self.delivery_tag)
        else:
            channel.basic_reject(self.delivery_tag, requeue=True)

    def requeue(self) -> None:
        """Hand the message back."""
        self.reject(requeue=True)


class ConfirmingChannel(Declaring, Bounded, pyamqp.Channel):
    """A channel that knows of each persistent message whether the broker has it.

    Others, such as events, are sent as ever.

    Attributes:
        consumed: Queues by the tags of their consumers, of those that acknowledge.
    """

    Message = Message

    # Missing in the stubs.
    events: dict[str, set[Any]]
    _basic_publish: Any
    _confirm_selected: bool

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - py-amqp's
        self._sent = 0
        self._open: set[int] = set()
        self._then: dict[int, Callable[[bool], None]] = {}
        self.consumed: dict[str, str] = {}
        self._refused = self._unroutable = ""
        super().__init__(*args, **kwargs)

    @property
    def supports_batch_publish(self) -> bool:
        """Tell whether messages are confirmed."""
        return self.connection is not None and bool(self.connection.confirm_publish)

    @property
    def settled(self) -> bool:
        """Tell whether all that was sent has been confirmed or refused."""
        return not self._open

    def basic_consume(
        self,
        queue: str = "",
        consumer_tag: str = "",
        *args: Any,  # noqa: ANN401 - py-amqp's
        **options: Any,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401
        """Consume from *queue*, and remember under which tag."""
        if not options.get("no_ack"):
            self.consumed[consumer_tag] = queue
        return super().basic_consume(queue, consumer_tag, *args, **options)

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
        if lasts and not str(options.get("exchange", "")).endswith(TO_WORKERS):
            # The broker would confirm one that goes to no queue; orders are for whoever is there.
            options["mandatory"] = True
        if self.connection is not None and self.connection.blocked:
            msg = "the broker takes no messages: it is short of memory or disk"
            raise RecoverableConnectionError(msg)
        self._basic_publish(message, *args, **options)
        self._sent += 1
        if not lasts:
            return None
        self._open.add(self._sent)
        return self._sent

    def send_then(self, message: Any, queue: str, then: Callable[[bool], None]) -> None:  # noqa: ANN401 - py-amqp's
        """Send a persistent *message* to *queue*, wait for nothing, and say later if it was taken.

        Nothing is said if the connection is lost before.
        """
        tag = self.send(message, exchange="", routing_key=queue)
        if tag is None:
            then(False)  # noqa: FBT003 - it lasts no longer than its broker
        else:
            self._then[tag] = then

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
            try:
                connection.drain_events(timeout=max(0.0, until - SystemClock.monotonic()))
            except TimeoutError as error:
                raise given_up(connection, "the broker did not confirm in time") from error
        refused, self._refused = self._refused, ""
        if refused:
            raise given_up(connection, refused)

    def _begin_to_confirm(self) -> None:
        self._sent, self._refused, self._unroutable = 0, "", ""
        self._open.clear()
        self._then.clear()
        self.confirm_select(nowait=True)  # not to be handed messages meanwhile
        self._confirm_selected = True
        for event, listener in (
            ("basic_ack", self._on_confirmed),
            ("basic_nack", self._on_refused),
            ("basic_return", self._on_returned),
        ):
            self.events[event].add(listener)

    def _on_confirmed(self, tag: int, multiple: bool) -> None:  # noqa: FBT001 - py-amqp's
        # What went to no queue comes back just before it is confirmed.
        refused, self._unroutable = self._unroutable, ""
        self._end(tag, multiple, refused)

    def _on_refused(self, tag: int, multiple: bool) -> None:  # noqa: FBT001 - py-amqp's
        self._end(tag, multiple, "the broker refused a message")

    def _on_returned(self, error: Exception, exchange: str, key: str, _: object) -> None:
        self._unroutable = f"no queue takes messages to {exchange!r} {key!r}: {error}"

    def _end(self, tag: int, multiple: bool, refused: str) -> None:  # noqa: FBT001
        ended = {one for one in self._open if one <= tag} if multiple else self._open & {tag}
        self._open -= ended
        for one in ended:
            then = self._then.pop(one, None)
            if then is not None:
                then(not refused)
            elif refused:
                self._refused = refused
