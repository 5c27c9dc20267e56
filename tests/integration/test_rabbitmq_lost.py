"""Connections to a RabbitMQ that are lost: who still uses one is told."""

from collections.abc import Iterator
from typing import Any

import pytest
from amqp.exceptions import RecoverableConnectionError
from celery import Celery

from resilience.broker.amqp import confirm_publishes
from resilience.testing.proxy import TcpProxy
from resilience.testing.rabbitmq import RabbitProcess


@pytest.fixture
def proxy(rabbitmq: RabbitProcess) -> Iterator[TcpProxy]:
    """What lies between."""
    proxy = TcpProxy(rabbitmq.port)
    yield proxy
    proxy.close()


@pytest.fixture
def channel(rabbitmq: RabbitProcess, proxy: TcpProxy) -> Iterator[Any]:
    """A channel of a connection that the network has cut, and a write was the first to notice."""
    app = Celery("lost", set_as_current=False)
    confirm_publishes(app)
    url = rabbitmq.new_url().replace(f":{rabbitmq.port}/", f":{proxy.port}/")
    with app.connection_for_write(url) as connection:
        channel = connection.default_channel
        proxy.cut()
        with pytest.raises(OSError, match=r"closed|reset|pipe"):
            channel.connection.blocking_read()
        yield channel


@pytest.fixture
def connection(channel: Any) -> Any:  # noqa: ANN401 - kombu's
    """That connection, as kombu has it."""
    return channel.connection.client


def test_who_waits_for_messages_is_told_when_the_connection_is_lost(connection: Any) -> None:  # noqa: ANN401 - kombu's
    """Another one in its place would have no consumers, and the wait no end."""
    with pytest.raises(RecoverableConnectionError):
        connection.drain_events(timeout=0.1)


def test_beat_does_not_replace_a_lost_connection(connection: Any) -> None:  # noqa: ANN401 - kombu's
    """The worker connects again, consumers and all, when its beat fails."""
    with pytest.raises(RecoverableConnectionError):
        connection.heartbeat_check()


def test_channel_of_a_replaced_connection_is_closed(connection: Any, channel: Any) -> None:  # noqa: ANN401 - kombu's
    """Or a publisher that still has it tries for ever."""
    assert connection.connection.connected
    assert channel.connection is None
