"""Brokers of either kind behind one interface, so that a test runs on both.

Tests of workers and publishers run on Valkey, or on RabbitMQ with TEST_BROKER=rabbitmq in the
environment. There, tests marked `redis_broker` are skipped: only a Redis broker can show what they
promise.
"""

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import pytest
from celery import Celery
from kombu import Connection, Producer, Queue
from kombu.message import Message

from resilience.testing.plugin import running_valkey
from resilience.testing.rabbitmq import RabbitProcess
from resilience.testing.valkey import ValkeyProcess
from resilience.testing.waiting import wait_until

KINDS = ("valkey", "rabbitmq")
ON_RABBITMQ = os.environ.get("TEST_BROKER") == "rabbitmq"  # noqa: TID251 - of the tests alone
PUT_SECONDS = EMPTY_SECONDS = 20.0
SHARED: list[RabbitProcess] = []
"""The RabbitMQ of the run, if tests run on RabbitMQ; else empty."""


class Broker(Protocol):
    """A message broker, as a test uses it.

    Attributes:
        url: Its address.
    """

    url: str

    @property
    def running(self) -> bool:
        """Tell whether it runs."""

    def start(self) -> None:
        """Start it."""

    def stop(self) -> None:
        """Stop it; it has the same messages when it is started again."""

    def kill(self) -> None:
        """Kill it; it has the same messages when it is started again."""

    def flush(self) -> None:
        """Delete everything in it, queues included."""

    def send_signal(self, number: int) -> None:
        """Send a signal to it."""

    def empty(self) -> None:
        """Delete all messages, also those that come back from a worker that was just killed.

        No live worker may hold any.
        """

    def waiting(self, queues: Sequence[str]) -> int:
        """Return how many messages are in these *queues*, or held by a worker."""

    def kept(self, queue: str) -> int:
        """Return how many messages wait in *queue*."""

    def held(self) -> int:
        """Return how many messages workers hold."""

    def headers(self, queue: str) -> list[dict[str, Any]]:
        """Return the headers of the messages in *queue*, which stay there, first in front."""


class Valkey:
    """A Valkey server as a broker."""

    def __init__(self, server: ValkeyProcess) -> None:
        """Wrap *server*."""
        self.server = server
        self.url = server.url
        self.start, self.kill, self.flush = server.start, server.kill, server.flush
        self.empty = server.flush
        self.send_signal, self.client = server.send_signal, server.client

    @property
    def running(self) -> bool:
        """Tell whether it runs."""
        return self.server.running

    def stop(self) -> None:
        """Stop it."""
        self.server.stop()

    def waiting(self, queues: Sequence[str]) -> int:
        """Return how many messages are in these *queues*, or held by a worker."""
        return sum(self.kept(name) for name in queues) + self.held()

    def held(self) -> int:
        """Return how many messages workers hold."""
        found: Any = self.server.client().hlen("unacked")
        return int(found)

    def headers(self, queue: str) -> list[dict[str, Any]]:
        """Return the headers of the messages in *queue*, which stay there, first in front."""
        found: Any = self.server.client().lrange(queue, 0, -1)
        return [json.loads(message)["headers"] for message in reversed(found)]

    def kept(self, queue: str) -> int:
        """Return how many messages wait in *queue*."""
        found: Any = self.server.client().llen(queue)
        return int(found)


class Rabbit:
    """A virtual host of its own on the RabbitMQ that all tests share."""

    def __init__(self, server: RabbitProcess, *, name: str | None = None) -> None:
        """Make a virtual host called *name*, or with a new name if None."""
        self.server = server
        if not server.running:
            server.start()
        self.url = server.new_url(name)
        self.send_signal, self.children = server.send_signal, server.children
        self._emptied = server.pid

    @property
    def running(self) -> bool:
        """Tell whether it runs."""
        return self.server.running

    def start(self) -> None:
        """Start it, if it does not run."""
        if not self.server.running:
            self.server.start()

    def stop(self) -> None:
        """Stop it."""
        self.server.stop()

    def kill(self) -> None:
        """Kill it, after it has noted its queues: it would lose one that was just declared."""
        self.server.note_queues()
        self.server.kill()

    def flush(self) -> None:
        """Delete everything in it, queues included."""
        self.server.flush(self.url)

    def empty(self) -> None:
        """Delete all messages, and the queues only after a restart of the server.

        RabbitMQ 3.10 fails when queues are deleted again and again.
        """
        if self._emptied != self.server.pid:  # quorum queues recovered at a start cannot be purged
            self.flush()
            self._emptied = self.server.pid
        wait_until(self._is_empty, EMPTY_SECONDS, "the broker is empty")

    def _is_empty(self) -> bool:
        held = self.held()
        self.server.purge(self.url)
        return not held

    def waiting(self, queues: Sequence[str]) -> int:
        """Return how many messages are in these *queues*, or held by a worker."""
        depths = self.server.depths(self.url)
        return sum(depths.get(name, 0) for name in queues)

    def kept(self, queue: str) -> int:
        """Return how many messages wait in *queue*."""
        found = self.server.counts(self.url).get(queue)
        return found.waiting if found else 0

    def held(self) -> int:
        """Return how many messages workers hold."""
        return sum(count.held for count in self.server.counts(self.url).values())

    def headers(self, queue: str) -> list[dict[str, Any]]:
        """Return the headers of the messages in *queue*, which stay there, first in front."""
        if queue not in self.server.counts(self.url):
            return []
        with Connection(self.url) as connection:
            bound: Any = Queue(queue)(connection.default_channel)
            return [message.headers for message in iter(bound.get, None)]


@contextmanager
def running_broker(paths: pytest.TempPathFactory) -> Iterator[Any]:
    """Run an empty broker for one module, whose tests may stop it."""
    if ON_RABBITMQ:
        yield Rabbit(SHARED[0])
        return
    with running_valkey(paths) as server:
        yield Valkey(server)


def put(broker: Broker, app: Celery[Any], queue: str, messages: int) -> None:
    """Put that many *messages* into *queue*; they are no jobs, and a worker drops them."""
    wanted = broker.kept(queue) + messages
    with Connection(broker.url) as connection, connection.Producer() as producer:
        app.amqp.queues[queue](connection.default_channel).declare()
        for _ in range(messages):
            producer.publish("", routing_key=queue)
    wait_until(lambda: broker.kept(queue) >= wanted, PUT_SECONDS, f"the messages wait in {queue}")


def forward(message: Message, queue: str) -> None:
    """Publish a copy of *message* to *queue*."""
    Producer(message.channel).publish(
        message.body,
        routing_key=queue,
        headers=message.headers,
        content_type=message.content_type,
        content_encoding=message.content_encoding,
        correlation_id=message.properties.get("correlation_id"),
        reply_to=message.properties.get("reply_to"),
    )
