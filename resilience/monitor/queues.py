"""What the broker knows of queues: how much waits there, since when, and who takes it."""

import threading
from collections import Counter
from collections.abc import Mapping
from itertools import chain
from typing import Any

from celery import Celery

from resilience.broker.lengths import length_of, oldest_of
from resilience.broker.unreadable import unreadable_name
from resilience.monitor.rows import queues_of
from resilience.tasks.publishing import publish_within
from resilience.tasks.resilience import Resilience

Workers = Mapping[str, int] | None
"""How many workers consume from each queue; None: that is not known."""
WORKERS_SECONDS = 1.0
"""Workers have so long to answer what they consume."""
NO_SUCH_QUEUE = "404"
"""What brokers reply where a queue does not exist; some of them as a number."""
DIGITS_MAX = 15
"""No time in seconds has so many."""
REMEMBERED_SECONDS = 300
"""How long a note that a queue has no consumer is kept. After a longer pause between two looks, the
time without a consumer begins with the later one."""


def read_queues(adopted: Resilience, seconds: float, workers: Workers = None) -> dict[str, Any]:
    """Return queues, their messages and workers as described at `status.look`; make no queue.

    Args:
        adopted: What the app declared.
        seconds: Longest wait for the answer.
        workers: Workers by queue, if the caller knows. Else they are asked, where messages wait and
            the broker does not count consumers.

    Raises:
        TimeoutError: The broker did not answer in time.
        OSError: Or another of `PUBLISH_ERRORS`: the broker is away.
    """
    depths, oldest, consumers = dict[str, int](), dict[str, float](), dict[str, int]()
    unreadable = dict[str, int]()

    def ask(given_up: threading.Event) -> None:
        with adopted.app.producer_or_acquire(None) as producer:
            connection: Any = producer.connection
            for name in queues_of(adopted):
                if given_up.is_set():
                    return
                depths[name] = _depth(connection, name)
                if aside := _depth(connection, unreadable_name(name)):
                    unreadable[name] = aside
                channel = connection.default_channel
                if depths[name] and (sent := oldest_of(channel, name)) is not None:
                    oldest[name] = sent
                if depths[name] and not hasattr(channel, "_size"):  # RabbitMQ counts them itself
                    declared = channel.queue_declare(name, passive=True)
                    consumers[name] = declared.consumer_count
        waiting = [name for name, depth in depths.items() if depth]
        if waiting and not consumers:
            counts = workers_by_queue(adopted.app) if workers is None else workers
            consumers.update({name: counts.get(name, 0) for name in waiting if counts is not None})

    if not publish_within(seconds, ask):
        msg = f"the broker did not answer within {seconds:g} s"
        raise TimeoutError(msg)
    return {"queues": depths, "oldest": oldest, "consumers": consumers, "unreadable": unreadable}


def _depth(connection: Any, queue: str) -> int:  # noqa: ANN401 - kombu's
    """Return how many messages are in *queue*, none if it does not exist."""
    try:
        return length_of(connection.default_channel, queue)
    except connection.channel_errors as error:
        if str(getattr(error, "reply_code", "")) != NO_SUCH_QUEUE:
            raise
        connection.revive(None)  # RabbitMQ has closed the channel
        return 0


def workers_by_queue(app: Celery[Any]) -> Counter[str] | None:
    """Ask workers what they consume, unless the app allows no remote control."""
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
    """
    key, now = adopted.store.key("unserved"), int(adopted.fleet_time())

    def ask(client: Any) -> dict[str, int]:  # noqa: ANN401 - redis-py's
        began = {}
        for name, workers in consumers.items():
            if workers:
                client.hdel(key, name)
            else:
                client.hsetnx(key, name, now)
                since = client.hget(key, name) or b""
                valid = since.isdigit() and len(since) <= DIGITS_MAX and int(since) <= now
                began[name] = int(since) if valid else now
                if not valid:
                    client.hset(key, name, now)
        client.expire(key, REMEMBERED_SECONDS)
        return began

    return adopted.store.read(key, ask, dict[str, int]())
