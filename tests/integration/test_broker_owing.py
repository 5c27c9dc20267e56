"""What a Redis broker could not be told is told later, and nobody is harmed meanwhile."""

import gc
import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress
from uuid import uuid4

import pytest
import redis
from kombu import Consumer, Exchange, Queue

from resilience.broker import SafeConnection, heartbeat
from resilience.clock import SystemClock
from resilience.testing.proxy import TcpProxy
from resilience.testing.valkey import ValkeyProcess
from resilience.testing.waiting import wait_until
from tests.integration.takers import SECONDS, SILENT_SECONDS, Taker, publish, queue
from tests.integration.test_broker_refusals import LITTLE, server, set_memory, take

GRACE_SECONDS = 2.5

__all__ = ["queue", "server", "take"]

pytestmark = pytest.mark.redis_broker("it is about this project's transport for Redis")

TIMEOUT_SECONDS = 0.5
MANY = 20


def refusals(caplog: pytest.LogCaptureFixture) -> int:
    """Return how often it was logged that the broker refuses something."""
    return sum("keeps refusing" in line for line in caplog.messages)


def test_acknowledgement_outlives_its_connection(
    server: ValkeyProcess, take: Callable[..., Taker], queue: str
) -> None:
    """A job ended while the broker was away, and nothing else is left of the lost connection."""
    publish(server, queue)
    one = take()
    channel = weakref.ref(one.await_number(1)[0].channel)
    server.stop()
    one.messages.pop().ack()
    one.connection.collect()
    del one.consumer
    gc.collect()

    server.start()

    wait_until(lambda: not server.client().hlen("unacked"), SECONDS, "it is acknowledged")
    assert wait_until(lambda: gc.collect() >= 0 and channel() is None, SECONDS, "it is forgotten")


def test_job_that_has_ended_is_nobody_elses_until_the_broker_knows(
    server: ValkeyProcess, take: Callable[..., Taker], queue: str
) -> None:
    """A worker that has much to make up may take long until it comes to this job."""
    publish(server, queue)
    one = take()
    (message,) = one.await_number(1)
    channel = one.consumer.channel
    settle, channel.settle = channel.settle, list
    server.stop()
    message.ack()
    server.start()
    other = take()

    other.drain(GRACE_SECONDS + 2 * SILENT_SECONDS)

    assert not other.messages
    channel.settle = settle
    wait_until(lambda: not server.client().hlen("unacked"), SECONDS, "it is acknowledged")


def test_message_that_the_broker_refuses_keeps_nothing_else_waiting(
    server: ValkeyProcess,
    queue: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Neither what its worker says of others nor what dead ones held; it is said, and not lost."""
    for name, seconds in {"GRACE_SECONDS": 0.3, "BEAT_SECONDS": 0.1}.items():
        monkeypatch.setattr(heartbeat, name, seconds)
    fine, client = uuid4().hex, server.client()
    one = Taker(server.url, [queue, fine], 2)
    publish(server, queue)
    publish(server, fine)
    messages = {message.delivery_info["routing_key"]: message for message in one.await_number(2)}
    client.set(queue, "no list")
    for tag, noted in client.hgetall("unacked").items():
        client.hset("unacked", f"dead {tag}", noted)
        client.zadd("unacked_index", {f"dead {tag}": 1})

    messages[queue].requeue()
    messages[fine].ack()

    wait_until(lambda: client.hlen("unacked") == 2, SECONDS, "the others are told of")
    assert client.llen(fine) == 1
    wait_until(lambda: refusals(caplog), SECONDS, "the refusal is logged")
    client.delete(queue)
    wait_until(lambda: client.llen(queue), SECONDS, "it is back")
    assert refusals(caplog) == 1
    one.connection.close()


def test_message_handed_back_twice_stays_with_who_took_it_then(
    server: ValkeyProcess, take: Callable[..., Taker], queue: str
) -> None:
    """As when the answer to the first time was lost."""
    publish(server, queue)
    one = take()
    (message,) = one.await_number(1)
    one.consumer.cancel()
    message.requeue()
    take().await_number(1)

    one.consumer.channel.qos.restore_by_tag(message.delivery_tag)

    assert not server.client().llen(queue)
    assert server.client().hlen("unacked") == 1


@pytest.fixture
def proxy(server: ValkeyProcess) -> Iterator[TcpProxy]:
    """What is between a consumer and the server."""
    one = TcpProxy(server.port)
    yield one
    one.close()


def test_closing_waits_once_for_a_broker_that_says_nothing(
    server: ValkeyProcess, proxy: TcpProxy, queue: str
) -> None:
    """However many messages are held."""
    limits = {"socket_timeout": TIMEOUT_SECONDS, "socket_connect_timeout": TIMEOUT_SECONDS}
    url = server.url.replace(f":{server.port}/", f":{proxy.port}/")
    one = Taker(url, [queue], MANY, **limits)
    publish(server, queue, MANY)
    one.await_number(MANY)
    proxy.swallow()
    began = SystemClock.monotonic()

    with suppress(redis.TimeoutError):
        one.connection.collect()

    assert SystemClock.monotonic() - began < MANY * TIMEOUT_SECONDS / 2


def test_consumer_begins_without_memory(server: ValkeyProcess, queue: str) -> None:
    """Nobody else would empty the queues of a broker that is full."""
    set_memory(server, LITTLE)
    taken: list[object] = []
    with SafeConnection(server.url) as connection:
        exchange = Exchange(queue, type="direct")
        own = Queue(queue, exchange, routing_key=queue)
        heard = Queue(f"{queue}.all", Exchange(f"{queue}.all", type="fanout"), expires=60.0)
        with Consumer(connection, [own, heard], on_message=taken.append):
            set_memory(server, "0")
            with connection.Producer() as producer:
                producer.publish({}, exchange=exchange, routing_key=queue, declare=[])
            wait_until(lambda: _drained(connection, taken), SECONDS, "it is taken")
    assert len(taken) == 1


def _drained(connection: SafeConnection, taken: list[object]) -> bool:
    with suppress(TimeoutError):
        connection.drain_events(timeout=0.1)
    return bool(taken)
