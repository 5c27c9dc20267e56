"""How many messages wait in a queue, and since when."""

from importlib.resources import files
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


def oldest_of(channel: Any, queue: str) -> float | None:  # noqa: ANN401 - kombu's
    """Ask the broker when the oldest message of *queue* was published, in fleet time.

    None: only a Redis broker can show a message without handing it out; the queue is empty; or the
    publisher has noted no time.
    """
    if not isinstance(channel, Channel):
        return None
    code = files("resilience.broker").joinpath("oldest.lua").read_text()
    lists = {str(channel._q_for_pri(queue, one)) for one in channel.priority_steps}  # type: ignore[attr-defined] # noqa: SLF001 - as above
    # Not `channel.client`: there comes the answer to whom consumed last and did not wait for it.
    with channel.conn_or_acquire() as client:
        times = [client.eval(code, 1, channel.global_keyprefix + one) for one in lists]
    return min((float(one) for one in times if one is not None), default=None)
