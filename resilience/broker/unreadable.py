"""Messages that nobody can read: how they are set aside."""

import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from queue import Empty
from typing import Any, Final

import redis
from kombu.message import Message as AnyMessage
from kombu.transport import redis as kombu_redis
from kombu.utils.json import loads
from kombu.utils.uuid import uuid

from resilience.broker.refusals import as_outage
from resilience.broker.unacked import Held, script
from resilience.errors import text_of
from resilience.text import get_logger

UNREADABLE_SUFFIX: Final = ".unreadable"
"""A message of a queue that cannot be read goes to the queue's name and this."""
REASONS_SUFFIX: Final = ".reasons"
"""A Redis broker has the reasons under that name and this: a hash by the message's SHA-1."""
UNREADABLE_HEADER: Final = "resilience-unreadable"
"""On RabbitMQ: `{"reason", "time"}`, added to the message."""
REASON_LENGTH: Final = 300
NO_MESSAGE: Final = "it is no JSON object with a text as properties.delivery_tag"

NOWHERE: Final = ("", b"")
"""No message is being delivered."""

logger = get_logger("resilience")

KombuMessage: Any = kombu_redis.Channel.Message
_SET_ASIDE = script("set_aside")
_NOTED = re.compile(rb'\[(.*),(?:0e\d+|""),("(?:[^"\\]|\\.)*") \]', re.DOTALL)
"""What our scripts note of a message: the message itself, who holds it, and its queue."""


def unreadable_name(queue: str) -> str:
    """Return where messages of *queue* that cannot be read go."""
    return f"{queue}{UNREADABLE_SUFFIX}"


def reason_of(error: BaseException) -> str:
    """Return why a message is set aside that *error* is about."""
    text = f"{type(error).__name__}: {text_of(error)}"[:REASON_LENGTH]
    return text.encode(errors="backslashreplace").decode()


class Unreadable:
    """What a channel of a Redis broker does with messages that cannot be read.

    Attributes:
        delivering: The queue of the message that is being delivered, and the message as it came.
    """

    delivering: tuple[str, bytes] = NOWHERE
    global_keyprefix: str
    unacked: Any
    plain_client: Callable[[], "redis.Redis"]

    def set_aside(self, raw: bytes, queue: str, reason: str, *, tag: str = "") -> None:
        """Move the message *raw* from what workers hold to where an operator finds it.

        Args:
            raw: The message as it came.
            queue: The queue that it was taken from.
            reason: Why it cannot be read.
            tag: Its delivery tag; empty if it cannot be read either.
        """
        key = self.global_keyprefix + unreadable_name(queue)
        keys = (*self.unacked.keys, key, f"{key}{REASONS_SUFFIX}")
        with as_outage():
            self.plain_client().eval(_SET_ASIDE, len(keys), *keys, raw, tag, reason)

    def messages(
        self, reply: Sequence[tuple[int, bytes]], queues: Sequence[str]
    ) -> Iterator[tuple[dict[str, Any], str, bytes]]:
        """Yield what the script took: each message, its queue, and the message as it came."""
        for number, raw in reply:
            if number < 0:  # the script has set it aside
                yield SetAside(NO_MESSAGE), queues[-number - 1], b""
            else:
                yield self.read(raw, queues[number]), queues[number], raw

    def read(self, raw: bytes, queue: str) -> dict[str, Any]:
        """Return the message *raw*, or what stands for it if it cannot be read: it is set aside."""
        try:
            payload: dict[str, Any] = loads(raw.decode())
            tag_of(payload)
        except Exception as error:  # noqa: BLE001 - it is no message, in whatever way
            reason = reason_of(error)
            self.set_aside(raw, queue, reason)
            return SetAside(reason)
        return payload

    def set_held_aside(self, held: Held, error: Exception) -> None:
        """Set aside what a dead worker held and *error* is about: it cannot be given back."""
        found = _NOTED.fullmatch(held.noted)
        reason = reason_of(error)
        if found is not None:
            self.set_aside(found[1], loads(found[2].decode()), reason, tag=held.tag)
        logger.error("cannot give back the message with delivery tag %r: %s", held.tag, reason)

    def _receive_one(self, connection: Any) -> Any:  # noqa: ANN401 - redis-py's
        """Read an order to workers, or an event; kombu goes on after other errors."""
        base: Any = super()
        try:
            return base._receive_one(connection)  # noqa: SLF001 - overridden
        except RecursionError as error:
            logger.error("left out what nobody can read: %s", error)  # noqa: TRY400 - it is deep
            raise Empty from error

    def _get_message_priority(self, message: Mapping[str, Any], reverse: bool = False) -> int:  # noqa: FBT001, FBT002 - kombu's
        base: Any = super()
        try:
            return int(base._get_message_priority(message, reverse))  # noqa: SLF001 - overridden
        except OverflowError:  # it is infinite
            return int(base._get_message_priority({"properties": {}}, reverse))  # noqa: SLF001


def tag_of(payload: Mapping[str, Any]) -> str:
    """Return the delivery tag of a message.

    Raises:
        TypeError: It has none.
    """
    tag: object = payload["properties"]["delivery_tag"]
    if not isinstance(tag, str):
        raise TypeError(NO_MESSAGE)
    return tag


class SetAside(dict[str, Any]):
    """Stands for a message that was set aside before it was delivered."""

    def __init__(self, reason: str) -> None:
        super().__init__(properties={"delivery_tag": uuid()}, reason=reason)


class SafeMessage(KombuMessage):  # type: ignore[misc] # kombu has few types
    """A message that is there also if it cannot be read: its consumer gets a decode error.

    Attributes:
        queue: The queue that it was taken from.
        raw: The message as it came; empty if it was set aside before.
    """

    channel: Any
    delivery_tag: Any
    errors: list[Any]

    def __init__(self, payload: Any, channel: Any = None, **kwargs: Any) -> None:  # noqa: ANN401 - kombu's
        self.queue, self.raw = channel.delivering
        try:
            if isinstance(payload, SetAside):
                raise TypeError(payload["reason"])  # noqa: TRY301 - as what cannot be decoded
            super().__init__(payload, channel=channel, **kwargs)
        except Exception:  # noqa: BLE001 - it is no message, in whatever way
            self.raw = b"" if isinstance(payload, SetAside) else self.raw
            self._raw, self.errors = payload, [sys.exc_info()]
            tag = uuid()  # of an order to workers, which nobody acknowledges
            with suppress(Exception):
                tag = tag_of(payload)
            info = {"exchange": "", "routing_key": self.queue}
            AnyMessage.__init__(self, "", tag, channel=channel, delivery_info=info)

    def _reraise_error(self, callback: Callable[..., object] | None = None) -> None:
        """Tell the consumer that it cannot be read; one that does not ask for that goes on."""
        if callback is not None or not self.queue:
            super()._reraise_error(callback)
            return
        reason = reason_of(self.errors[0][1])
        self.set_aside(reason)
        logger.error("set a message of queue %s aside: %s", self.queue, reason)

    def set_aside(self, reason: str) -> None:
        """Move the message, as it came, to where those are that cannot be read."""
        if self.raw:
            self.channel.set_aside(self.raw, self.queue, reason, tag=self.delivery_tag)
        if not self.acknowledged:
            self.ack()
