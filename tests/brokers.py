"""The brokers that tests run on, as far as a test has to do with one."""

from collections.abc import Sequence
from typing import Any, Protocol

from resilience.testing.rabbitmq import RabbitProcess
from resilience.testing.valkey import ValkeyProcess

KINDS = ("valkey", "rabbitmq")


class Broker(Protocol):
    """A server that workers and publishers meet at.

    Attributes:
        url: Its address.
    """

    url: str

    def start(self) -> None:
        """Start it."""

    def stop(self) -> None:
        """Stop it; what it holds, it holds when it is started again."""

    def kill(self) -> None:
        """Kill it; the same holds."""

    def flush(self) -> None:
        """Let it forget everything."""

    def waiting(self, queues: Sequence[str]) -> int:
        """Return how many messages are in these *queues*, or held by a worker."""

    def kept(self, queue: str) -> int:
        """Return how many messages wait in *queue*."""


class Valkey:
    """A Valkey of its own."""

    def __init__(self, server: ValkeyProcess) -> None:
        """Take *server*."""
        self.server = server
        self.url = server.url
        self.start, self.kill, self.flush = server.start, server.kill, server.flush

    def stop(self) -> None:
        """Stop it."""
        self.server.stop()

    def waiting(self, queues: Sequence[str]) -> int:
        """Return how many messages are in these *queues*, or held by a worker."""
        held: Any = self.server.client().hlen("unacked")
        return sum(self.kept(name) for name in queues) + int(held)

    def kept(self, queue: str) -> int:
        """Return how many messages wait in *queue*."""
        found: Any = self.server.client().llen(queue)
        return int(found)


class Rabbit:
    """A virtual host of a RabbitMQ that all tests share."""

    def __init__(self, server: RabbitProcess) -> None:
        """Make one."""
        self.server = server
        if not server.running:
            server.start()
        self.url = server.new_url()
        self.kill, self.flush = server.kill, server.flush

    def start(self) -> None:
        """Start it, if it does not run."""
        if not self.server.running:
            self.server.start()

    def stop(self) -> None:
        """Stop it."""
        self.server.stop()

    def waiting(self, queues: Sequence[str]) -> int:
        """Return how many messages are in these *queues*, or held by a worker."""
        depths = self.server.depths()
        return sum(depths.get(name, 0) for name in queues)

    def kept(self, queue: str) -> int:
        """Return how many messages are in *queue*, or held by a worker."""
        return self.waiting([queue])
