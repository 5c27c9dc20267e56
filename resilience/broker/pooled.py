"""Publishes to a Redis broker through one client."""

from typing import Any

import redis
from kombu.connection import ConnectionPool
from kombu.connection import PooledConnection as KombuPooledConnection
from kombu.transport import redis as kombu_redis

KombuChannel: Any = kombu_redis.Channel
KombuTransport: Any = kombu_redis.Transport
KombuSentinelChannel: Any = kombu_redis.SentinelChannel
KombuSentinelTransport: Any = kombu_redis.SentinelTransport


class PooledChannel(KombuChannel):  # type: ignore[misc] # kombu has few types
    """A channel that reuses its client until the client's pool of connections is replaced.

    Kombu makes a client for each message that is published. That takes a fifth of the time of a
    publish. A client has no state but its pool. The pool gives each thread a connection of its own,
    and a forked process new ones; whoever reconnects gets another pool.
    """

    _kept_client: "redis.Redis | None" = None

    def _create_client(self, asynchronous: bool = False) -> Any:  # noqa: ANN401, FBT001, FBT002 - kombu's
        """Return the kept client; if *asynchronous*, a new one, which may hold a connection."""
        if asynchronous:
            return super()._create_client(asynchronous=True)
        client = self._kept_client
        if client is None or client.connection_pool is not self.pool:
            client = self._kept_client = super()._create_client()
        return client

    def _connparams(self, asynchronous: bool = False) -> Any:  # noqa: ANN401, FBT001, FBT002 - kombu's
        """Return how to connect.

        Raises:
            redis.ConnectionError: The channel was closed, as by another thread when the broker was
                away. Kombu ends in an AttributeError, which it does not take for an outage.
        """
        if self.connection is None:
            msg = "the channel to the broker was closed"
            raise redis.ConnectionError(msg)
        return super()._connparams(asynchronous)


class PooledTransport(KombuTransport):  # type: ignore[misc] # as above
    """A Redis transport whose channels keep their client."""

    Channel = PooledChannel


class PooledSentinelChannel(PooledChannel, KombuSentinelChannel):  # type: ignore[misc]
    """The same, through Sentinels."""


class PooledSentinelTransport(KombuSentinelTransport):  # type: ignore[misc]
    """The same, through Sentinels."""

    Channel = PooledSentinelChannel


POOLED = {
    kombu_redis.Transport: PooledTransport,
    kombu_redis.SentinelTransport: PooledSentinelTransport,
}


class PooledConnection(KombuPooledConnection):
    """A connection on which apps publish."""

    def get_transport_cls(self) -> Any:  # noqa: ANN401 - a class
        """Return the transport class: kombu's own for Redis is replaced, others stay."""
        found: Any = super().get_transport_cls()  # type: ignore[misc]
        return POOLED.get(found, found)


class Pool(ConnectionPool):
    """A pool of such connections."""

    def new(self) -> Any:  # noqa: ANN401 - kombu's
        """Return one more."""
        return PooledConnection(self, **dict(self.connection._info(resolve=False)))  # noqa: SLF001
