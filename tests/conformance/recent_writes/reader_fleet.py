"""Processes that read and write the same source, and their user."""

from uuid import uuid4

from resilience.consistency import ConsistentSession, Token
from resilience.store import Store
from resilience.store.writes import WriteStore
from resilience.testing.valkey import ValkeyProcess
from tests.unit.sources import AnyReader, Make, Source

KEY = "user:7"


class Fleet:
    """Processes that share a primary, a replica and a store."""

    def __init__(self, make: Make, url: str) -> None:
        """Describe them."""
        self.make, self.url, self.namespace = make, url, uuid4().hex
        self.primary, self.replica = Source(), Source()

    def process(self, store: Store | None = None, **options: object) -> AnyReader:
        """Return the reader of another process."""
        store = store or Store(self.url, namespace=self.namespace, timeout_seconds=10)
        replicas = [self.replica]
        return self.make(self.primary, replicas, name="profiles", store=store, **options)

    def key(self) -> str:
        """Return the key under which the store keeps the user's writes."""
        store = Store(self.url, namespace=self.namespace)
        return WriteStore(store, "kv:profiles", life_us=1).key(KEY)


def user(token: Token | None = None) -> ConsistentSession:
    """Return a request of the user, with what the one before gave it."""
    return ConsistentSession(KEY, token=token)


def scripts(server: ValkeyProcess) -> int:
    """Return how many scripts were run."""
    stats = server.client().info("commandstats")
    return sum(stats.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in ("evalsha", "eval"))
