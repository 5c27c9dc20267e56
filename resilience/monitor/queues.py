"""What the broker knows of queues: how much waits there, since when, and who takes it."""

import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import Any

from celery import Celery

from resilience.broker.lengths import length_of, oldest_of
from resilience.monitor.rows import queues_of
from resilience.tasks.publishing import publish_within
from resilience.tasks.resilience import Resilience

WORKERS_SECONDS = 1.0
"""Workers have so long to answer what they consume."""
REMEMBERED_SECONDS = 300
"""Who finds out later that a queue still has no consumer does not know that it had none before."""


@dataclass(frozen=True, slots=True)
class Queues:
    """What waits in the queues of an app.

    Attributes:
        depths: Messages by queue; of a queue that the broker does not have: 0.
        sent: When the oldest message was published, in fleet time, where a broker knows that.
        consumers: Workers by queue, of those with messages that were counted.
    """

    depths: dict[str, int] = field(default_factory=dict)
    sent: dict[str, float] = field(default_factory=dict)
    consumers: dict[str, int] = field(default_factory=dict)


def read_queues(
    adopted: Resilience, seconds: float, workers: Mapping[str, int] | None = None
) -> Queues:
    """Ask the broker for all queues of the app, and make none.

    Args:
        adopted: What the app declared.
        seconds: Longest wait for the answer.
        workers: How many consume from each queue, if the caller knows; else they are asked, where
            messages wait and the broker counts no consumers.

    Raises:
        TimeoutError: The broker did not answer in time.
        OSError: Or another of `PUBLISH_ERRORS`: the broker is away.
    """
    queues = Queues()
    if not publish_within(seconds, partial(_ask, adopted, queues, workers)):
        msg = f"the broker did not answer within {seconds:g} s"
        raise TimeoutError(msg)
    return queues


def _ask(
    adopted: Resilience,
    queues: Queues,
    workers: Mapping[str, int] | None,
    given_up: threading.Event,
) -> None:
    with adopted.app.producer_or_acquire(None) as producer:
        connection: Any = producer.connection
        for name in queues_of(adopted):
            if given_up.is_set():
                return
            try:
                queues.depths[name] = length_of(connection.default_channel, name)
            except connection.channel_errors:  # no such queue, for which RabbitMQ closes a channel
                connection.revive(None)
                queues.depths[name] = 0
            if queues.depths[name]:
                _ask_more(connection.default_channel, name, queues)
    waiting = [name for name, depth in queues.depths.items() if depth]
    if waiting and not queues.consumers:
        counts = workers_by_queue(adopted.app) if workers is None else workers
        if counts is not None:
            queues.consumers.update({name: counts.get(name, 0) for name in waiting})


def _ask_more(channel: Any, name: str, queues: Queues) -> None:  # noqa: ANN401 - kombu's
    """Ask about a queue in which messages wait."""
    if (sent := oldest_of(channel, name)) is not None:
        queues.sent[name] = sent
    if not hasattr(channel, "_size"):  # RabbitMQ counts consumers itself
        queues.consumers[name] = channel.queue_declare(name, passive=True).consumer_count


def workers_by_queue(app: Celery[Any]) -> Counter[str] | None:
    """Ask workers what they consume; return how many there are by queue, None if none is asked."""
    if not app.conf.worker_enable_remote_control:
        return None
    answers: Any = app.control.inspect(timeout=WORKERS_SECONDS).active_queues() or {}
    taken = [queues for queues in answers.values() if isinstance(queues, list)]
    return Counter(str(one.get("name")) for one in chain(*taken) if isinstance(one, dict))


def unserved(adopted: Resilience, consumers: Mapping[str, int]) -> dict[str, int]:
    """Return since when each queue without a consumer was seen so, in fleet time.

    Whoever looks leaves a note in the store; the queue must be looked at every few minutes.

    Raises:
        StoreUnavailableError: The store does not answer.
        ValueError: Somebody else has written there.
    """
    key, now = adopted.store.key("unserved"), int(adopted.fleet_time())

    def ask(client: Any) -> dict[str, int]:  # noqa: ANN401 - redis-py's
        began = {}
        for name, workers in consumers.items():
            if workers:
                client.hdel(key, name)
            else:
                client.hsetnx(key, name, now)
                began[name] = int(client.hget(key, name) or now)
        client.expire(key, REMEMBERED_SECONDS)
        return began

    return adopted.store.run(ask)
