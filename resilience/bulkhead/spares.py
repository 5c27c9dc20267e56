"""Which jobs failed only because they went ahead as probes."""

import redis

from resilience.store import Store

SPARED_SECONDS = 3600
"""So long after a job first failed as a probe, it is spared when it does again."""


class Spares:
    """Remembers in the store since when a job is spared.

    A job that fails whatever its dependency does must end some time, and must not keep a circuit
    open for ever.
    """

    def __init__(self, store: Store) -> None:
        """Remember in *store*."""
        self._store = store

    def spare(self, job: str) -> bool:
        """Tell whether the failure of *job* as a probe is to be forgotten.

        Raises:
            StoreUnavailableError: Nobody knows.
        """
        key = self._store.key("spared", job)

        def exchange(client: redis.Redis) -> float:
            with client.pipeline() as pipe:
                pipe.set(key, 1, nx=True, ex=2 * SPARED_SECONDS)
                pipe.ttl(key)
                return float(pipe.execute()[1])

        return self._store.run(exchange) > SPARED_SECONDS
