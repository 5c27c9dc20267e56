"""What a consumer of a Redis broker takes is noted, and comes back when the consumer dies."""

import base64
import json
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from threading import Thread

import pytest
from kombu import Connection, Exchange, Queue
from kombu.message import Message

from resilience.broker import CRASHES_HEADER, SafeConnection
from resilience.broker.silence import LOOK_SECONDS
from resilience.clock import SystemClock
from resilience.testing.valkey import ValkeyProcess
from resilience.testing.waiting import wait_until
from tests.integration.takers import (
    OPTIONS,
    SECONDS,
    SILENT_SECONDS,
    Taker,
    broker,
    holder,
    ids_of,
    publish,
    queue,
    said_by,
    taker,
)

__all__ = ["broker", "queue", "taker"]

pytestmark = pytest.mark.redis_broker("it is about this project's transport for Redis")


def test_message_is_at_all_times_in_its_queue_or_noted(
    broker: ValkeyProcess, taker: Callable[..., Taker], queue: str
) -> None:
    """Whenever anybody looks: a worker killed at that moment loses nothing."""
    count = broker.client().register_script(
        "return redis.call('LLEN', KEYS[1]) + redis.call('HLEN', KEYS[2])"
    )
    publish(broker, queue, 500)
    one = taker(queue)
    seen: set[int] = set()
    drain = Thread(target=lambda: one.await_number(500))
    drain.start()
    while drain.is_alive():
        seen.add(count([queue, "unacked"]))
    drain.join()

    assert seen == {500}
    assert broker.client().zcard("unacked_index") == 500


def test_idle_consumer_is_told_of_a_message_and_hardly_asks(
    broker: ValkeyProcess, taker: Callable[..., Taker], queue: str
) -> None:
    """It asks once a second; what comes in between is there at once."""
    one = taker(queue)
    one.drain(0.5)
    client = broker.client()

    def scripts() -> int:
        stats = client.info("commandstats")
        return sum(stats[name]["calls"] for name in ("cmdstat_eval", "cmdstat_evalsha"))

    before = scripts()
    one.drain(3.0)
    # looks of the consumer, and looks of the heartbeat for what is overdue: one a second each
    assert scripts() - before <= 8

    delays = []
    for number in range(1, 6):
        began = SystemClock.monotonic()
        publish(broker, queue)
        while len(one.messages) < number:
            one.drain(0.01)
        delays.append(SystemClock.monotonic() - began)
    assert min(delays) < 0.2


def test_message_of_a_dead_consumer_comes_to_another(
    broker: ValkeyProcess, taker: Callable[..., Taker], queue: str
) -> None:
    """Soon, whole, and with a count of the dead."""
    odd = {"empty": [], "none": {}, "big": 2**60, "float": 0.1, "text": 'ü\u2028"delivery_tag": "'}
    with holder(broker.url, queue) as process:
        (expected,) = publish(broker, queue, odd=odd)
        assert said_by(process) == expected
        raw = json.loads(broker.client().hvals("unacked")[0])[0]

    (again,) = taker(queue).await_number(1)

    assert again.headers == raw["headers"] | {CRASHES_HEADER: 1, "redelivered": True}
    assert again.headers["odd"] == odd
    assert again.body == raw["body"].encode() or again.body == base64.b64decode(raw["body"])


def test_message_of_a_live_consumer_stays_its_own(
    broker: ValkeyProcess, taker: Callable[..., Taker], queue: str
) -> None:
    """Though it does nothing for three times as long as a consumer may be silent."""
    with holder(broker.url, queue) as process:
        (expected,) = publish(broker, queue)
        assert said_by(process) == expected
        one = taker(queue)
        one.drain(3 * SILENT_SECONDS)
        assert not one.messages

        process.send_signal(signal.SIGSTOP)  # now it is as good as dead
        assert ids_of(one.await_number(1)) == [expected]
        one.messages[0].ack()
        process.send_signal(signal.SIGCONT)
        one.drain(2 * SILENT_SECONDS)

    assert len(one.messages) == 1
    assert not broker.client().hlen("unacked")


def test_message_of_a_plain_consumer_stays_its_own(
    broker: ValkeyProcess, taker: Callable[..., Taker], queue: str
) -> None:
    """A fleet may be mixed: nobody hears of plain workers, and they are not dead for that."""
    held: list[Message] = []
    with Connection(broker.url, transport_options=OPTIONS) as connection:
        publish(broker, queue)
        with connection.Consumer([Queue(queue)], on_message=held.append):
            connection.drain_events(timeout=SECONDS)
            one = taker(queue)
            one.drain(3 * SILENT_SECONDS)

            assert not one.messages
            held[0].ack()


def test_messages_beyond_the_prefetch_count_stay_in_the_queue(
    broker: ValkeyProcess, taker: Callable[..., Taker], queue: str
) -> None:
    """In order; each acknowledgement lets one more come."""
    ids = publish(broker, queue, 10)
    one = taker(queue, prefetch=3)

    one.drain(0.5)
    assert ids_of(one.messages) == ids[:3]
    assert broker.client().llen(queue) == 7
    for number in range(4, 11):
        one.messages[number - 4].ack()
        one.await_number(number)
    assert ids_of(one.messages) == ids


def test_queues_are_served_by_priority_and_in_the_order_declared(
    broker: ValkeyProcess, taker: Callable[..., Taker], queue: str
) -> None:
    """First priorities, 0 before 9, then the order of queues that the strategy says."""
    second = f"{queue}.second"
    low = publish(broker, queue, 2, priority=9)
    later = publish(broker, second, 2)
    high = publish(broker, queue, 2, priority=0)

    one = taker(second, queue, queue_order_strategy="sorted")

    assert ids_of(one.await_number(6)) == [*high, *later, *low]


def test_consumer_that_acknowledges_nothing_gets_each_message_once(
    broker: ValkeyProcess, taker: Callable[..., Taker], queue: str
) -> None:
    """With `no_ack` nothing stays noted."""
    one = taker()
    one.consumer.add_queue(Queue(queue, no_ack=True))
    one.consumer.consume()
    publish(broker, queue, 3)

    one.await_number(3)

    assert not broker.client().hlen("unacked")
    assert not broker.client().zcard("unacked_index")


def test_message_for_a_consumer_that_has_left_stays_in_the_queue(
    broker: ValkeyProcess, taker: Callable[..., Taker], queue: str
) -> None:
    """Consumers come and go while messages are published: none is lost."""
    one = taker(queue)
    for _ in range(20):
        publish(broker, queue)
        one.consumer.cancel_by_queue(queue)
        one.drain(0.01)
        publish(broker, queue)
        one.consumer.add_queue(Queue(queue))
        one.consumer.consume()
        one.drain(0.01)
    one.await_number(40)

    assert len({*ids_of(one.messages)}) == 40


def test_message_that_is_none_is_set_aside(
    broker: ValkeyProcess,
    taker: Callable[..., Taker],
    queue: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Others go on, and nothing is lost."""
    client = broker.client()
    for text in ("no json", "[]", '{"properties": 7}', '{"properties": {"delivery_tag": {}}}'):
        client.lpush(queue, text)
    (good,) = publish(broker, queue)
    one = taker(queue)

    assert ids_of(one.await_number(1)) == [good]
    assert client.llen(f"{queue}.unreadable") == 4
    assert caplog.text.count("properties.delivery_tag") == 4
    assert len(client.hvals(f"{queue}.unreadable.reasons")) == 4


def test_prefix_of_keys_holds_for_all_of_them(
    broker: ValkeyProcess, taker: Callable[..., Taker], queue: str
) -> None:
    """Also for what the scripts touch."""
    prefix = "one:"
    with (
        SafeConnection(broker.url, transport_options={"global_keyprefix": prefix}) as connection,
        connection.Producer() as producer,
    ):
        producer.publish({}, routing_key=queue, headers={"id": "7"})
    one = taker(queue, global_keyprefix=prefix)

    (message,) = one.await_number(1)
    assert broker.client().hlen(f"{prefix}unacked") == 1
    message.reject(requeue=True)
    one.await_number(2)[1].ack()
    assert not broker.client().exists(f"{prefix}unacked", f"{prefix}unacked_index", "unacked")


def test_closed_consumer_gives_back_what_it_held(
    broker: ValkeyProcess, taker: Callable[..., Taker], queue: str
) -> None:
    """At once, in their order, as deliveries that count nobody dead."""
    ids = publish(broker, queue, 5)
    one = taker(queue, prefetch=3)
    one.await_number(3)

    one.connection.close()

    assert not broker.client().hlen("unacked")
    another = taker(queue)
    assert sorted(ids_of(another.await_number(5))) == sorted(ids)
    assert not any(CRASHES_HEADER in message.headers for message in another.messages)


def test_consumer_goes_on_when_the_server_forgets_its_scripts_or_connections(
    broker: ValkeyProcess, taker: Callable[..., Taker], queue: str
) -> None:
    """A server that was started again knows neither."""
    one = taker(queue)
    one.drain(0.3)
    published: list[str] = []
    for number in range(1, 4):
        broker.client().script_flush()
        broker.client().client_kill_filter(_type="normal", skipme=True)
        published += publish(broker, queue)

        def come(number: int = number) -> bool:
            with suppress(*one.connection.connection_errors):
                one.drain(0.05)
            return len(one.messages) == number

        wait_until(come, SECONDS, "the message comes")
    assert ids_of(one.messages) == published


@pytest.fixture
def untracked(broker: ValkeyProcess) -> Iterator[str]:
    """The address of a user for whom the server may not track keys."""
    client = broker.client()
    client.acl_setuser(
        "plain",
        enabled=True,
        passwords=["+secret"],
        keys=["*"],
        channels=["*"],
        commands=["+@all", "-client|tracking"],
    )
    yield broker.url.replace("redis://", "redis://plain:secret@")
    client.acl_deluser("plain")


def test_consumer_that_may_not_track_keys_asks_every_second(
    broker: ValkeyProcess, untracked: str, queue: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A server that forbids it makes it slow, and says so, but not deaf."""
    one = Taker(untracked, [queue])
    try:
        one.drain(0.3)
        publish(broker, queue)
        one.await_number(1)
    finally:
        one.connection.close()
    assert "the broker cannot tell of new jobs" in caplog.text


def test_consumer_looks_into_its_queues_while_others_have_much_to_say(
    broker: ValkeyProcess, untracked: str, queue: str
) -> None:
    """As workers have, whose events come more often than a wait without an event loop ends."""
    one = Taker(untracked, [queue])
    heard: list[int] = []
    words, silent = Exchange(f"{queue}.words", type="fanout"), threading.Event()

    def talk() -> None:
        with SafeConnection(broker.url, transport_options=OPTIONS) as connection:
            producer = connection.Producer()
            while not silent.wait(0.2):
                producer.publish({}, exchange=words, declare=[words])

    def come() -> bool:
        with suppress(TimeoutError):
            one.connection.drain_events(timeout=2 * LOOK_SECONDS)  # as Celery does
        return bool(one.messages)

    with (
        ThreadPoolExecutor() as beside,
        one.connection.Consumer(
            [Queue(f"{queue}.heard", words, auto_delete=True)],
            callbacks=[lambda *_: heard.append(1)],
            no_ack=True,
        ),
    ):
        talking = beside.submit(talk)
        try:
            one.drain(0.5)
            assert heard
            publish(broker, queue)
            wait_until(come, 10 * LOOK_SECONDS, "the message comes")
        finally:
            silent.set()
            talking.result()
            one.connection.close()
