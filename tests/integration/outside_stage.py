"""A worker whose queue anybody may write to, on either broker."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import amqp
import pytest
from celery import Celery
from kombu import Connection

from resilience.settings import Settings
from resilience.tasks import Resilience
from resilience.testing.plugin import running_valkey
from resilience.testing.rabbitmq import RabbitProcess
from resilience.testing.stack import WorkerProcess, run_worker
from resilience.testing.valkey import ValkeyProcess
from resilience.testing.waiting import wait_until
from tests.brokers import Rabbit, Valkey
from tests.integration.apps.outside import DONE, EVENTS, QUEUE, make_app

SECONDS = 120.0
SET_ASIDE = f"{QUEUE}.unreadable"
GOOD = ("plain", "resilient", "fired")
"""Tasks of good jobs, one of each kind."""
RESTARTS = ("Unrecoverable", "onnection to broker lost", "Trying to reconnect", "restarts")
"""What a worker's log says when it, or its consumer, ends or begins again."""


@dataclass
class Outside:
    """A broker, a worker, and the app of a publisher."""

    broker: Valkey | Rabbit
    desk: ValkeyProcess
    app: Celery[Any]
    worker: WorkerProcess

    def good(self, jobs: int = 1) -> set[str]:
        """Publish good jobs, so many of each kind; return their keys."""
        keys = {f"{task}-{uuid4().hex}": task for task in GOOD for _ in range(jobs)}
        for key, task in keys.items():
            self.app.tasks[task].apply_async((key,), queue=QUEUE)
        return {*keys}

    def deliver(self, raw: bytes | amqp.Message) -> None:
        """Put a message into the queue as whoever can write there does."""
        if isinstance(raw, bytes):
            self.broker.client().lpush(QUEUE, raw)  # type: ignore[union-attr]
            return
        with self.app.connection_for_write() as connection:
            channel: Any = connection.default_channel
            channel.basic_publish(raw, exchange="", routing_key=QUEUE)

    def deliver_all(self, messages: Sequence[Any]) -> None:
        """Put *messages* into the queue, in one exchange or over one connection."""
        if isinstance(self.broker, Valkey):
            self.broker.client().lpush(QUEUE, *messages)
            return
        with Connection(self.broker.url) as connection:
            channel: Any = connection.default_channel
            for one in messages:
                channel.basic_publish(one, exchange="", routing_key=QUEUE)

    def done(self) -> Counter[str]:
        """Return how often each good job was done, by its key."""
        return Counter(one.decode() for one in self.desk.client().lrange(DONE, 0, -1))

    def await_done(self, keys: set[str]) -> None:
        """Wait until all good jobs with *keys* are done; each is done once.

        Raises:
            AssertionError: The worker has ended, or one was done twice.
        """

        def all_done() -> bool:
            assert self.worker.running, f"the worker has ended:\n{self.worker.log_tail()}"
            return keys <= {*self.done()}

        wait_until(all_done, SECONDS, "all good jobs are done")
        assert {self.done()[key] for key in keys} == {1}

    def await_end(self) -> None:
        """Wait until no message is in the queue, or held by the worker."""
        wait_until(lambda: not self.broker.waiting([QUEUE]), SECONDS, "the queue is empty")

    def events(self) -> list[dict[str, Any]]:
        """Return what was announced of messages that were set aside."""
        every = [json.loads(one) for one in self.desk.client().lrange(EVENTS, 0, -1)]
        return [one for one in every if one["name"] == "JobUnreadable"]

    def take_set_aside(self) -> list[tuple[Any, Mapping[str, Any]]]:
        """Take what was set aside, the oldest first, each with its reason and time."""
        if isinstance(self.broker, Rabbit):
            with Connection(self.broker.url) as connection:
                channel: Any = connection.default_channel
                channel.queue_declare(SET_ASIDE, durable=True, auto_delete=False)
                found = list(iter(lambda: channel.basic_get(SET_ASIDE, no_ack=True), None))
            headers = [one.properties["application_headers"] for one in found]
            return [
                (one, own["resilience-unreadable"]) for one, own in zip(found, headers, strict=True)
            ]
        client = self.broker.client()
        whys = {
            name: json.loads(why) for name, why in client.hgetall(f"{SET_ASIDE}.reasons").items()
        }
        sha = client.register_script("return redis.sha1hex(ARGV[1])")
        raws = client.lrange(SET_ASIDE, 0, -1)[::-1]
        client.delete(SET_ASIDE, f"{SET_ASIDE}.reasons")
        return [(raw, whys[sha(args=[raw])]) for raw in raws]

    def restarts(self) -> list[str]:
        """Return the lines of the worker's log that say that it began again."""
        lines = self.worker.log.splitlines()
        return [line for line in lines if any(part in line for part in RESTARTS)]


@contextmanager
def outside(
    kind: str, request: pytest.FixtureRequest, paths: pytest.TempPathFactory
) -> Iterator[Outside]:
    """Run servers and a worker."""
    with running_valkey(paths) as desk, running_valkey(paths) as server:
        broker: Valkey | Rabbit = Valkey(server)
        if kind == "rabbitmq":
            rabbitmq: RabbitProcess = request.getfixturevalue("rabbitmq")
            broker = Rabbit(rabbitmq)
        ledger = f"sqlite:///{paths.mktemp('ledger') / 'ledger.sqlite3'}"
        settings = Settings(store_url=desk.url, ledger_url=ledger)
        app = make_app(broker.url, desk.url, settings)
        Resilience.of(app).ledger.upgrade()
        env = {
            "CELERY_BROKER_URL": broker.url,
            "DESK_URL": desk.url,
            "RESILIENCE_STORE_URL": desk.url,
            "RESILIENCE_LEDGER_URL": ledger,
        }
        path = "tests.integration.apps.outside"
        queues = (QUEUE, f"{QUEUE}.retry")
        with run_worker(path, queues=queues, concurrency=2, env=env) as worker:
            try:
                yield Outside(broker, desk, app, worker)
            finally:
                worker.kill()
                Resilience.of(app).ledger.close()
                Resilience.of(app).store.client.close()
                app.close()
