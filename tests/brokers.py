"""The brokers that tests run on, as far as a test has to do with one.

Many tests of workers run on Valkey, and on RabbitMQ with TEST_BROKER=rabbitmq in the environment:
those that look into Valkey itself are skipped then.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn, Protocol

import pytest

from resilience.testing.plugin import running_valkey
from resilience.testing.rabbitmq import RabbitProcess
from resilience.testing.valkey import ValkeyProcess

KINDS = ("valkey", "rabbitmq")
ON_RABBITMQ = os.environ.get("TEST_BROKER") == "rabbitmq"  # noqa: TID251 - of the tests alone
SHARED: list[RabbitProcess] = []
"""The server of all tests while they run on RabbitMQ."""


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

    def send_signal(self, number: int) -> None:
        """Send a signal to it."""

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
        self.send_signal = server.send_signal

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

    def __init__(self, server: RabbitProcess, *, name: str | None = None) -> None:
        """Make one, of a *name* that nobody has used yet."""
        self.server = server
        if not server.running:
            server.start()
        self.url = server.new_url(name)
        self.kill, self.flush = server.kill, server.flush
        self.send_signal, self.children = server.send_signal, server.children

    @property
    def running(self) -> bool:
        """Tell whether it runs."""
        return self.server.running

    def client(self) -> NoReturn:
        """Skip the test that asks Redis itself."""
        pytest.skip("it looks into a Redis broker")

    def start(self) -> None:
        """Start it, if it does not run."""
        if not self.server.running:
            self.server.start()

    def stop(self) -> None:
        """Stop it."""
        self.server.stop()

    def waiting(self, queues: Sequence[str]) -> int:
        """Return how many messages are in these *queues*, or held by a worker."""
        depths = self.server.depths(self.url.rpartition("/")[2])
        return sum(depths.get(name, 0) for name in queues)

    def kept(self, queue: str) -> int:
        """Return how many messages are in *queue*, or held by a worker."""
        return self.waiting([queue])


@contextmanager
def running_broker(paths: pytest.TempPathFactory) -> Iterator[Any]:
    """Run the broker of a module's tests."""
    if ON_RABBITMQ:
        yield Rabbit(SHARED[0])
        return
    with running_valkey(paths) as server:
        yield server


def kept(broker: Any, queue: str) -> int:  # noqa: ANN401 - of either kind
    """Return how many messages wait in *queue* of a `running_broker`."""
    one = broker if isinstance(broker, Rabbit) else Valkey(broker)
    return one.kept(queue)
