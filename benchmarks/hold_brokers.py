"""The brokers of the benchmark of held jobs, each of which counts itself what it delivers."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.hold_app import QUEUE
from resilience.testing.process import ServerProcess
from resilience.testing.rabbitmq import RabbitProcess
from resilience.testing.valkey import ValkeyProcess

TAKEN = "__keyevent@0__:[lr]pop"


@dataclass(frozen=True, slots=True, kw_only=True)
class Broker:
    """A server that does not run yet.

    Attributes:
        server: Which one.
        url: Its address.
        count: Begins to count, and returns what tells how many messages were taken from the queues
            since; one that came back and was taken again counts twice. For a server that runs.
    """

    server: ServerProcess
    url: str
    count: Callable[[], Callable[[], int]]


def redis_broker(home: Path) -> Broker:
    """Return a Redis, with its data in *home*."""
    server = ValkeyProcess(home)

    def count() -> Callable[[], int]:
        client: Any = server.client()
        client.config_set("notify-keyspace-events", "El")
        events = client.pubsub()
        events.psubscribe(TAKEN)
        seen = 0

        def taken() -> int:
            nonlocal seen
            client.ping()  # what was taken before is on its way
            while (event := events.get_message(timeout=0.1)) is not None:
                of_pattern = event["type"] == "pmessage"
                seen += of_pattern and event["data"].decode().startswith(QUEUE)
            return seen

        return taken

    return Broker(server=server, url=server.url, count=count)


def rabbitmq_broker(home: Path) -> Broker:
    """Return a RabbitMQ, with its data in *home*; its only quorum queues are the app's."""
    server = RabbitProcess(home)

    def delivered() -> int:
        said = server.evaluate(
            "maps:get(messages_delivered_total, maps:get([{protocol, amqp091}, "
            "{queue_type, rabbit_quorum_queue}], rabbit_global_counters:overview()))"
        )
        return int(said)

    def count() -> Callable[[], int]:
        before = delivered()
        return lambda: delivered() - before

    return Broker(server=server, url=server.url, count=count)
