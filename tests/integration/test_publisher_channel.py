"""The channels that an adopted app publishes on, on a Redis broker."""

import os
from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery

from resilience import Dependency, Resilience
from resilience.settings import Settings
from resilience.testing.valkey import ValkeyProcess

QUEUE = "mail"
SECONDS = 60

pytestmark = pytest.mark.redis_broker("it is about this project's transport for Redis")


@pytest.fixture
def app(valkey: ValkeyProcess) -> Iterator[Celery[Any]]:
    """An adopted app, whose queue is empty."""
    valkey.client().flushall()
    made: Celery[Any] = Celery("publisher", broker=valkey.url, set_as_current=False)
    Resilience(made, dependencies=[Dependency(QUEUE)], settings=Settings(store_url=valkey.url))
    yield made
    made.close()


@pytest.fixture
def producer(app: Celery[Any]) -> Iterator[Any]:
    """What the app publishes with, from a pool that no other app of this process shares."""
    pool = app.connection_for_write().Pool(limit=1)
    with pool.acquire(block=True) as connection:
        yield connection.Producer()
    pool.force_close_all()


def publish(producer: Any, **options: Any) -> None:  # noqa: ANN401 - kombu's
    """Publish a message as Celery does."""
    producer.publish({}, routing_key=QUEUE, **options)


def test_publisher_makes_no_client_for_each_message(producer: Any) -> None:  # noqa: ANN401
    """One for as long as its pool of connections is the same."""
    publish(producer)
    channel = producer.channel
    with channel.conn_or_acquire() as first, channel.conn_or_acquire() as second:
        assert first is second
    channel._disconnect_pools()  # noqa: SLF001 - what kombu does after an error
    with channel.conn_or_acquire() as third:
        assert third is not first


@pytest.mark.parametrize("retry", [True, False])
def test_closed_channel_is_an_outage_and_no_bug(
    producer: Any,  # noqa: ANN401
    valkey: ValkeyProcess,
    *,
    retry: bool,
) -> None:
    """As when another thread lost the broker: Celery publishes on a new one, or says so."""
    publish(producer)
    channel, connection = producer.channel, producer.connection
    channel.close()
    channel._disconnect_pools()  # noqa: SLF001 - as its connection does when it is closed
    if retry:
        publish(producer, retry=True, retry_policy={"max_retries": 3})
        assert valkey.client().llen(QUEUE) == 2
    else:
        with pytest.raises(connection.connection_errors, match="channel to the broker was closed"):
            publish(producer)


def test_forked_process_publishes_on_connections_of_its_own(
    app: Celery[Any], valkey: ValkeyProcess
) -> None:
    """Parent and child publish at the same time: each gets its own answers."""

    def publish_some(messages: int) -> None:
        for _ in range(messages):
            with app.producer_pool.acquire() as one:
                publish(one)

    publish_some(1)
    child = os.fork()
    publish_some(50)
    if child == 0:
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert valkey.client().llen(QUEUE) == 101


def test_queue_that_is_opened_by_hand_again_and_again_is_no_error(
    app: Celery[Any], caplog: pytest.LogCaptureFixture
) -> None:
    """Its channel may close while the heartbeat's thread asks the broker."""
    for number in range(40):
        with app.connection_for_write() as connection, connection.SimpleQueue(QUEUE) as queue:
            queue.put(number)
            message = queue.get(timeout=SECONDS)
            message.ack()
            assert message.payload == number
    assert [record.getMessage() for record in caplog.records if record.exc_info] == []
