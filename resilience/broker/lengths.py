"""How many messages wait in a queue."""

from typing import Any

from kombu.transport.redis import Channel


def length_of(channel: Any, queue: str) -> int:  # noqa: ANN401 - kombu's
    """Ask the broker how many messages wait in *queue*.

    Raises:
        kombu.exceptions.ChannelError: RabbitMQ has no such queue; its channel is closed.
    """
    if isinstance(channel, Channel):
        # Kombu asks first whether the queue has a list, and leaves out `global_keyprefix` there.
        return int(channel._size(queue))  # noqa: SLF001 - there is no other way to it
    return int(channel.queue_declare(queue, passive=True).message_count)
