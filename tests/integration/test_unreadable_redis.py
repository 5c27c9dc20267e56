"""What becomes of a message in Redis that nobody can read, whoever takes it."""

import json
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
import redis

from resilience.broker.unreadable import reason_of
from resilience.testing.valkey import ValkeyProcess
from resilience.testing.waiting import wait_until
from tests.integration.takers import SECONDS, Taker, broker, ids_of, publish, queue, taker

__all__ = ["broker", "queue", "taker"]

pytestmark = pytest.mark.redis_broker("it is about this project's transport for Redis")

UNREADABLE = (
    b'{"body": "abc", "properties": {"delivery_tag": "a", "body_encoding": "base64"}}',
    b'{"headers": [1], "properties": {"delivery_tag": "b"}}',
    b'{"headers": {"x": ' + b"9" * 5000 + b'}, "properties": {"delivery_tag": "c"}}',
    b'{"headers": {"x": {"__type__": "no", "__value__": 1}}, "properties": {"delivery_tag": "d"}}',
    b'{"x": "\xff", "properties": {"delivery_tag": "e"}}',
    b"no json",
)


def set_aside(broker: ValkeyProcess, queue: str) -> list[bytes]:
    """Return what was set aside, the oldest first; each has a reason."""
    client = broker.client()
    raws: Any = client.lrange(f"{queue}.unreadable", 0, -1)
    reasons: Any = client.hvals(f"{queue}.unreadable.reasons")
    assert len(reasons) == len(set(raws))
    assert all(json.loads(why)["reason"] for why in reasons)
    return list(reversed(raws))


def test_consumer_that_asks_for_no_errors_goes_on(
    broker: ValkeyProcess, taker: Callable[..., Taker], queue: str
) -> None:
    """As kombu's own does not: what it cannot read is set aside, whole and in order."""
    broker.client().lpush(queue, *UNREADABLE)
    (good,) = publish(broker, queue)
    one = taker(queue)

    assert ids_of(one.await_number(1)) == [good]
    one.messages[0].ack()

    assert sorted(set_aside(broker, queue)) == sorted(UNREADABLE)
    assert not broker.client().exists("unacked", "unacked_index")


def test_what_was_put_back_is_taken_again(
    broker: ValkeyProcess, taker: Callable[..., Taker], queue: str
) -> None:
    """With the one command that docs/operations.md names."""
    client = broker.client()
    client.lpush(queue, "no json")
    one = taker(queue)
    wait_until(
        lambda: one.drain(0.01) or client.llen(f"{queue}.unreadable"), SECONDS, "it is aside"
    )

    client.lpush(f"{queue}.unreadable", json.dumps(readable("mended")))
    for _ in range(2):
        client.lmove(f"{queue}.unreadable", queue, "RIGHT", "LEFT")

    assert ids_of(one.await_number(1)) == ["mended"]
    assert set_aside(broker, queue) == [b"no json"]


def test_message_of_any_priority_is_set_aside_in_one_list(
    broker: ValkeyProcess, taker: Callable[..., Taker], queue: str
) -> None:
    """Its name is that of the queue, and no name of kombu's."""
    client = broker.client()
    low = f"{queue}\x06\x163"
    client.lpush(low, "no json", UNREADABLE[2])
    client.lpush(low, json.dumps(readable("good")))

    assert ids_of(taker(queue).await_number(1)) == ["good"]
    assert set_aside(broker, queue) == [b"no json", UNREADABLE[2]]


def test_message_stays_in_its_queue_while_there_is_no_place_for_it(
    broker: ValkeyProcess, taker: Callable[..., Taker], queue: str
) -> None:
    """Somebody has made another key of that name: nothing is lost."""
    client = broker.client()
    client.set(f"{queue}.unreadable", "no list")
    client.lpush(queue, "no json")
    one = taker(queue)

    with pytest.raises(redis.ConnectionError, match="WRONGTYPE"):
        one.await_number(1)
    assert client.lrange(queue, 0, -1) == [b"no json"]

    client.delete(f"{queue}.unreadable")
    again = taker(queue)
    publish(broker, queue)
    again.await_number(1)
    assert set_aside(broker, queue) == [b"no json"]


def test_what_a_dead_worker_held_and_nobody_can_read_is_set_aside(
    broker: ValkeyProcess, taker: Callable[..., Taker], queue: str
) -> None:
    """The worker died between taking it and setting it aside; what is behind it is given back."""
    client = broker.client()
    good = json.dumps(readable("good")).encode()
    held = dict(zip("bcd", UNREADABLE[1:4], strict=True))
    for tag, raw in {**held, "good": good, "odd": b"what our scripts never wrote"}.items():
        client.hset("unacked", tag, b"[" + raw + b',0e7,"' + queue.encode() + b'" ]')
        client.zadd("unacked_index", {tag: 1.0})
    one = taker(queue)

    assert ids_of(one.await_number(1)) == ["good"]
    wait_until(lambda: len(set_aside(broker, queue)) >= len(held), SECONDS, "all are set aside")
    assert {*held.values()} <= {*set_aside(broker, queue)}


def test_message_with_an_endless_priority_can_be_put_back(
    broker: ValkeyProcess, taker: Callable[..., Taker], queue: str
) -> None:
    """It counts as one with the default priority."""
    message = readable("endless")
    message["properties"]["priority"] = float("inf")
    broker.client().lpush(queue, json.dumps(message))
    one = taker(queue)

    one.await_number(1)[0].reject(requeue=True)

    assert ids_of(one.await_number(2)) == ["endless", "endless"]


def test_reason_can_be_stored_whatever_the_error_says() -> None:
    """Also with half a surrogate pair in its text, and a megabyte of it."""
    reason = reason_of(ValueError("\ud800" + "x" * 1_000_000))

    assert reason.encode()
    assert len(reason) < 1_000


def readable(name: str) -> dict[str, Any]:
    """Return a message with an id."""
    properties = {"delivery_tag": uuid4().hex, "delivery_info": {}, "priority": 0}
    return {
        "body": "{}",
        "headers": {"id": name},
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "properties": properties,
    }
