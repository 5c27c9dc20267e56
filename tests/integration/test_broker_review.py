"""Messages taken together, answers that come late, and notes that are none."""

import json
import os
import select
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from socket import socket

import pytest
import redis
from kombu import Consumer, Queue
from kombu.message import Message

from resilience.broker import CRASHES_HEADER, SafeConnection
from resilience.testing.valkey import ValkeyProcess
from resilience.testing.waiting import wait_until
from tests.integration.takers import (
    OPTIONS,
    SECONDS,
    SILENT_SECONDS,
    Taker,
    broker,
    publish,
    queue,
    taker,
)

OVERDUE_SECONDS = 3.0

__all__ = ["broker", "queue", "taker"]

pytestmark = pytest.mark.redis_broker("it is about this project's transport for Redis")

FIRST = "!"
"""A tag that is claimed before all others."""


def test_messages_behind_one_that_takes_long_stay_their_own(
    broker: ValkeyProcess,
    taker: Callable[..., Taker],
    queue: str,
) -> None:
    """A pool that runs a job on the spot delivers the next one only when it is done."""
    publish(broker, queue, 3)
    seen: list[Message] = []
    with SafeConnection(broker.url, transport_options=OPTIONS) as connection:

        def run(message: Message) -> None:
            if not seen:
                other.drain(4 * SILENT_SECONDS)
            seen.append(message)
            message.ack()

        with Consumer(connection, [Queue(queue)], on_message=run, prefetch_count=4):
            other = taker(queue)
            wait_until(lambda: _drained(connection, seen, 3), SECONDS, "all are done")

    assert not other.messages


def test_answer_that_was_late_is_read(
    broker: ValkeyProcess,
    taker: Callable[..., Taker],
    queue: str,
) -> None:
    """Though the worker looked whether it is there before its loop could see it."""
    publish(broker, queue)
    one = taker(queue)
    channel = one.consumer.channel
    channel.connection.cycle.on_poll_start()
    sock = channel.client.connection._sock  # noqa: SLF001 - there is no other way to it
    wait_until(lambda: bool(broker.client().hlen("unacked")), SECONDS, "it is taken")
    wait_until(lambda: _readable(sock), SECONDS, "the answer is there")
    channel._brpop_sent_at -= OVERDUE_SECONDS + 1  # noqa: SLF001 - the loop was busy with something else

    channel.look_again()

    (message,) = one.await_number(1)
    assert CRASHES_HEADER not in message.headers


@pytest.mark.parametrize(
    "noted", ["no json", "[1]", '[{"headers": null}, "", "odd"]', "[null,1,2]"]
)
def test_note_that_is_none_keeps_nobody_waiting(
    broker: ValkeyProcess,
    taker: Callable[..., Taker],
    queue: str,
    noted: str,
) -> None:
    """What a dead worker held comes back, whatever else is noted before it."""
    (published,) = publish(broker, queue)
    client = broker.client()
    raw = client.rpop(queue)
    tag = json.loads(raw)["properties"]["delivery_tag"]
    client.hset("unacked", FIRST, noted)
    client.hset("unacked", tag, json.dumps([json.loads(raw), "", queue]))
    client.zadd("unacked_index", {FIRST: 1, tag: 1})

    (message,) = taker(queue).await_number(1)

    assert message.headers["id"] == published


def _drained(connection: SafeConnection, seen: list[Message], number: int) -> bool:
    with suppress(TimeoutError):
        connection.drain_events(timeout=0.2)
    return len(seen) >= number


def _readable(sock: socket) -> bool:
    return bool(select.select([sock], [], [], 0)[0])


def test_publisher_keeps_one_client_through_threads_and_forks_until_it_reconnects(
    broker: ValkeyProcess, queue: str
) -> None:
    """To make a client takes as long as to use it; its pool knows whose connection is whose."""

    def client_after(number: int) -> "redis.Redis":
        with connection.default_channel.conn_or_acquire() as client:
            assert client.echo(str(number)) == str(number).encode(), "another one's answer"
            client.lpush(queue, number)
        return client

    with SafeConnection(broker.url).Pool(1).acquire() as connection:
        first = client_after(0)
        with ThreadPoolExecutor(8) as threads:
            assert {*threads.map(client_after, range(400))} == {first}
        child = os.fork()
        if child == 0:
            status = 1
            try:
                status = int(any(client_after(number) is not first for number in range(20)))
            finally:
                os._exit(status)
        for number in range(20):
            client_after(number)
        assert os.waitpid(child, 0)[1] == 0
        connection.collect()
        assert client_after(0).connection_pool is connection.default_channel.pool

    assert broker.client().llen(queue) == 1 + 400 + 20 + 20 + 1
