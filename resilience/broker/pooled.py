"""The clients through which a channel speaks to its Redis server."""

from typing import Any

import redis
from kombu.transport import redis as kombu_redis

KombuChannel: Any = kombu_redis.Channel


class PooledChannel(KombuChannel):  # type: ignore[misc] # kombu has few types
    """A channel that keeps its clients for as long as it keeps their pool of connections.

    Kombu makes a client for each message that is published, which takes a third as long as all the
    rest. A client has no state but its pool. The pool gives each thread a connection of its own,
    and a forked process new ones; whoever reconnects gets another pool.
    """

    _spare: Any = None
    _plain: "redis.Redis | None" = None
    _shared: "redis.Redis | None" = None

    @property
    def pool(self) -> Any:  # noqa: ANN401 - redis-py's
        """Connections to the server; also when the channel is closed, as jobs of its may run on."""
        return super().pool if self._spare is None or self.connection else self._spare

    def plain_client(self) -> "redis.Redis":
        """Return a client whose keys are as the server knows them."""
        pool = self._spare or self.pool
        client = self._plain
        if client is None or client.connection_pool is not pool:
            client = self._plain = redis.Redis(connection_pool=pool)
        return client

    def _create_client(self, asynchronous: bool = False) -> Any:  # noqa: ANN401, FBT001, FBT002 - kombu's
        """Return a client for single commands; or an own one, which may keep a connection."""
        if asynchronous:
            return super()._create_client(asynchronous=True)
        client = self._shared
        if client is None or client.connection_pool is not self.pool:
            client = self._shared = super()._create_client()
        return client
