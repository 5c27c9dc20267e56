"""Kombu's Redis transport, but for the moments in which it loses a message.

Kombu takes a message with one command and notes with a second one that it has it: a worker that is
killed between the two loses the message. Here one script does both. The worker then waits, without
holding anything, until the server tells it that one of its queues is no longer empty: with tracking
of keys, the server's invalidation messages (Redis 6 and later, Valkey).

Kombu gives a message to another worker when nobody has acknowledged it for an hour, whether its
worker lives or not. Here a heartbeat says which workers live, so that it can be some seconds.
"""

from typing import Any

from kombu.transport import redis as kombu_redis

from resilience.broker.channel import SafeChannel
from resilience.broker.heartbeat import Heartbeat
from resilience.broker.poller import SafePoller
from resilience.broker.refusals import REFUSALS

KombuTransport: Any = kombu_redis.Transport
KombuSentinelChannel: Any = kombu_redis.SentinelChannel
KombuSentinelTransport: Any = kombu_redis.SentinelTransport


class SafeTransport(KombuTransport):  # type: ignore[misc] # kombu has few types
    """Kombu's, with channels that lose nothing.

    Attributes:
        heartbeat: Says that this process lives.
    """

    Channel = SafeChannel
    connection_errors = (*KombuTransport.connection_errors, *REFUSALS)

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - kombu's
        super().__init__(*args, **kwargs)
        self.cycle = SafePoller()
        self.heartbeat = Heartbeat()


class SafeSentinelChannel(SafeChannel, KombuSentinelChannel):  # type: ignore[misc]
    """The same, through Sentinels."""


class SafeSentinelTransport(SafeTransport, KombuSentinelTransport):  # type: ignore[misc]
    """The same, through Sentinels."""

    Channel = SafeSentinelChannel
