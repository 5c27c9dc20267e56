"""A cap on the messages that a worker may have unacknowledged, above what Celery asks for."""

from collections.abc import Sequence
from typing import Any

from celery.worker.state import (  # type: ignore[attr-defined] # missing in the stubs
    scheduled_requests,
)


class Throttle:
    """Stands between Celery's own count of the prefetch and the channel of one connection.

    With late acknowledgement a message is unacknowledged for as long as its job runs, so the
    prefetch count is the number of jobs in flight. Celery goes on to count as it likes (jobs with
    an ETA, pools that grow, reconnects); the smaller of both reaches the broker.
    """

    def __init__(self, consumer: Any) -> None:  # noqa: ANN401 - Celery's
        """Cap what *consumer*, whose task consumer and QoS are new, tells its channel."""
        self._consumer = consumer
        self._set = consumer.qos.callback
        self._asked: int = consumer.qos.value
        self._told: int = self._asked
        self._cap: int | None = None
        consumer.qos.callback = self

    def __call__(self, *, prefetch_count: int) -> None:
        """Take what Celery wants; 0 means no limit."""
        self._asked = prefetch_count
        self._set(prefetch_count=self._wanted())
        self._told = self._wanted()

    def limit(self, jobs: int, *, full: int, queues: Sequence[str]) -> None:
        """Let *jobs* be in flight of *full*, which is no limit; *queues* are consumed with it."""
        self._cap = jobs if jobs < full else None
        wanted = self._wanted()
        if wanted == self._told:
            return
        self._set(prefetch_count=wanted)
        self._told = wanted
        if self._is_static():
            self._consume_anew(queues)

    def _wanted(self) -> int:
        if self._cap is None:
            return self._asked
        # Jobs with an ETA are unacknowledged as well, but do not run.
        capped = self._cap + len(scheduled_requests)
        return min(self._asked, capped) if self._asked else capped

    def _is_static(self) -> bool:
        """Tell whether the broker heeds a new count for new consumers only: AMQP, quorum queues."""
        transport = self._consumer.connection.transport
        return transport.driver_type == "amqp" and not self._consumer.qos_global

    def _consume_anew(self, queues: Sequence[str]) -> None:
        for queue in queues:
            if self._consumer.task_consumer.consuming_from(queue):
                self._consumer.cancel_task_queue(queue)
                self._consumer.add_task_queue(queue)
