"""A connection to a broker that takes messages without losing any."""

from typing import Any

from kombu import Connection
from kombu.transport import redis as kombu_redis

from resilience.broker.pooled import Pool
from resilience.broker.redis import SafeSentinelTransport, SafeTransport

SAFE = {
    kombu_redis.Transport: SafeTransport,
    kombu_redis.SentinelTransport: SafeSentinelTransport,
}

PACE = {"interval_start": 0.5, "interval_step": 0.5, "interval_max": 2.0}
"""How long to wait between attempts to connect, in seconds. Kombu waits up to 30 s, and a worker
would be idle for so long after its broker is back."""


class SafeConnection(Connection):
    """Kombu's, with a transport of this package where kombu's own can lose a message."""

    def ensure_connection(self, *args: Any, **options: Any) -> Any:  # noqa: ANN401 - kombu's
        """Connect, again and again if need be, at our own pace."""
        return super().ensure_connection(*args, **{**PACE, **options})

    def get_transport_cls(self) -> Any:  # noqa: ANN401 - a class
        """Return the transport; one that is nobody else's is replaced."""
        found: Any = super().get_transport_cls()
        return SAFE.get(found, found)

    def Pool(self, limit: int | None = None, **options: Any) -> Any:  # noqa: ANN401, N802 - kombu's
        """Return a pool of connections to publish through."""
        if self.get_transport_cls() in SAFE.values():
            return Pool(self, limit, **options)
        return super().Pool(limit, **options)
