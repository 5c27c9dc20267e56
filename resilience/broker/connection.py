"""A connection to a broker that takes messages without losing any."""

from typing import Any

from kombu import Connection
from kombu.transport import redis as kombu_redis

from resilience.broker.redis import SafeSentinelTransport, SafeTransport

SAFE = {
    kombu_redis.Transport: SafeTransport,
    kombu_redis.SentinelTransport: SafeSentinelTransport,
}


class SafeConnection(Connection):
    """Kombu's, with a transport of this package where kombu's own can lose a message."""

    def get_transport_cls(self) -> Any:  # noqa: ANN401 - a class
        """Return the transport; one that is nobody else's is replaced."""
        found: Any = super().get_transport_cls()
        return SAFE.get(found, found)
