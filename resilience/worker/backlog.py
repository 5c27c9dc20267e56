"""Late jobs of a queue in Redis, taken and acknowledged many at a time.

One at a time, as a worker takes jobs that it runs, to receive and acknowledge one takes two thirds
of what it takes to run a no-op: the jobs behind a backlog would wait for long.
"""

from collections.abc import Iterable, Sequence
from importlib.resources import files
from typing import Any

from kombu.message import Message
from kombu.transport.virtual import QoS
from kombu.utils.json import dumps

from resilience.broker import SafeChannel
from resilience.tasks.envelope import BUDGET_HEADER

AT_ONCE = 100
"""What a worker drops in some hundredths of a second; then it looks after its other duties."""

_code = files(__package__).joinpath("late.lua").read_text()


def take_late(message: Message, droppable: Iterable[str], now: float) -> Sequence[Message]:
    """Take what is late behind *message*, as if the transport had delivered it.

    The broker keeps it as unacknowledged: it comes again if this process dies, or its connection.

    Args:
        message: The one that was delivered last.
        droppable: Names of tasks whose late jobs are dropped.
        now: Fleet time.

    Returns:
        At most `AT_ONCE`, in their order; none if the broker is no Redis, or a cluster of them.
    """
    channel: Any = message.channel
    if not isinstance(channel, SafeChannel):
        return ()
    queue = (message.delivery_info or {}).get("routing_key")
    if queue is None or queue not in channel.active_queues:
        return ()
    priority = channel._get_message_priority({"properties": message.properties})  # noqa: SLF001
    key = channel.global_keyprefix + channel._q_for_pri(queue, priority)  # noqa: SLF001
    names = dumps(dict.fromkeys(droppable, True))
    late = channel.plain_client().register_script(_code)
    values: list[Any] = [BUDGET_HEADER, now, AT_ONCE, names, dumps(queue)]
    found = late([key, *channel.unacked.keys], values)
    taken = []
    for raw in found:
        payload, channel.delivering = channel.read(raw, queue), (queue, raw)
        taken.append(one := channel.Message(payload, channel=channel))
        QoS.append(channel.qos, one, one.delivery_tag)  # not that of Redis, which has it already
    return taken


def acknowledge(messages: Sequence[Message]) -> None:
    """Acknowledge *messages*, all of one channel, in one exchange."""
    if not messages:
        return
    channel: Any = messages[0].channel
    tags = [str(message.delivery_tag) for message in messages]
    with channel.conn_or_acquire() as client, client.pipeline() as pipe:
        pipe.zrem(channel.unacked_index_key, *tags).hdel(channel.unacked_key, *tags).execute()
    for tag in tags:
        QoS.ack(channel.qos, tag)
