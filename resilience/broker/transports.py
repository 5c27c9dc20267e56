"""Which transport an app publishes through."""

from typing import Any

from celery import Celery
from kombu.transport import pyamqp


def transport_of(app: Celery[Any]) -> type[Any]:
    """Return the class of the transport that *app* publishes through, by its current settings.

    Connects to nothing. Without a broker URL it is that of Celery's own default, a local RabbitMQ.

    Raises:
        KeyError: The URL names a transport that kombu does not know.
    """
    conf: Any = app.conf
    amqp: Any = app.amqp
    connection = amqp.Connection(conf.broker_write_url, transport=conf.broker_transport)
    found: type[Any] = connection.get_transport_cls()
    return found


def on_rabbitmq(app: Celery[Any]) -> bool:
    """Tell whether *app* publishes to a RabbitMQ."""
    return issubclass(transport_of(app), pyamqp.Transport)
