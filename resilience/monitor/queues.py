"""What the broker knows of queues: how much waits there, and who takes it."""

import threading
from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import chain
from typing import Any

from resilience.monitor.rows import queues_of
from resilience.tasks.admission import depth_of
from resilience.tasks.resilience import Resilience

WORKERS_SECONDS = 1.0
"""Workers have so long to answer what they consume."""
REMEMBERED_SECONDS = 300
"""Who finds out later that a queue still has no consumer does not know that it had none before."""


class Queues:
    """Asks the broker, and workers where only they know.

    Attributes:
        depths: Messages by queue.
        consumers: Workers by queue, of those with messages.
    """

    def __init__(self, adopted: Resilience, *, ask_workers: bool) -> None:
        """Know nothing yet."""
        self._adopted = adopted
        self._ask_workers = ask_workers
        self.depths: dict[str, int] = {}
        self.consumers: dict[str, int] = {}

    def ask(self, given_up: threading.Event) -> None:
        """Ask, unless nobody waits for the answer any longer."""
        app = self._adopted.app
        with app.producer_or_acquire(None) as producer:
            for name in queues_of(self._adopted):
                if given_up.is_set():
                    return
                depth = self.depths[name] = depth_of(app, producer, name)
                channel: Any = producer.channel
                if depth and not hasattr(channel, "_size"):  # RabbitMQ counts consumers itself
                    declared = channel.queue_declare(app.amqp.queues[name].name, passive=True)
                    self.consumers[name] = declared.consumer_count
        waiting = [name for name, depth in self.depths.items() if depth]
        if self._ask_workers and waiting and not self.consumers:
            self._count_workers(waiting)

    def _count_workers(self, names: Iterable[str]) -> None:
        app = self._adopted.app
        if not app.conf.worker_enable_remote_control:
            return
        answers: Any = app.control.inspect(timeout=WORKERS_SECONDS).active_queues() or {}
        taken = [queues for queues in answers.values() if isinstance(queues, list)]
        counted = Counter(str(one.get("name")) for one in chain(*taken) if isinstance(one, dict))
        self.consumers = {name: counted[name] for name in names}


def unserved(adopted: Resilience, consumers: Mapping[str, int]) -> dict[str, int]:
    """Return since when each queue without a consumer was seen so, in fleet time.

    Whoever looks leaves a note in the store; the queue must be looked at every few minutes.

    Raises:
        StoreUnavailableError: The store does not answer.
        ValueError: Somebody else has written there.
    """
    key, now = adopted.store.key("unserved"), int(adopted.fleet_time())

    def ask(client: Any) -> dict[str, int]:  # noqa: ANN401 - redis-py's
        found = {}
        for name, workers in consumers.items():
            if workers:
                client.hdel(key, name)
            else:
                client.hsetnx(key, name, now)
                found[name] = int(client.hget(key, name) or now)
        client.expire(key, REMEMBERED_SECONDS)
        return found

    return adopted.store.run(ask)
