"""Lets RabbitMQ notice soon that it has lost a worker."""

from typing import Any, Final

from celery import bootsteps
from celery.concurrency.solo import TaskPool as SoloPool

from resilience.tasks.defaults import USUAL_HEARTBEAT

HEARTBEAT_SECONDS: Final = 10.0
"""RabbitMQ gives up a connection that was silent for about twice to three times as long."""


class QuickHeartbeat(bootsteps.Step):
    """Beats faster than Celery by default, for a connection that is lost without a word.

    What the broker sent over it waits for that connection until the broker gives it up, for minutes
    if nobody says otherwise. A solo worker does not beat while its job runs, nor a gevent worker
    while a job keeps its hub: they stay as slow. What the app sets itself is left alone.
    """

    def __init__(self, parent: Any, **options: Any) -> None:  # noqa: ANN401 - Celery's signature
        """Set the beat of the *parent*, a consumer that is not connected yet."""
        super().__init__(parent, **options)
        usual = parent.amqheartbeat is USUAL_HEARTBEAT
        if usual and not parent.pool.is_green and not isinstance(parent.pool, SoloPool):
            parent.amqheartbeat = HEARTBEAT_SECONDS
