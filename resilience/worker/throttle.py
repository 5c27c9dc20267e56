"""A cap on the messages that a worker may have unacknowledged, above what Celery asks for."""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from celery.worker.state import reserved_requests
from kombu.common import ignore_errors

from resilience.compat import has_global_qos, scheduled_in

NO_LIMIT = 0
MORE_MAX = 8
"""So many consumers are added before one takes the place of all."""


class Throttle:
    """Stands between Celery's own count of the prefetch and the channel of one connection.

    With late acknowledgement a message is unacknowledged for as long as its job runs, so the
    prefetch count is the number of jobs in flight. Celery goes on to count as it likes (jobs with
    an ETA, pools that grow, reconnects); the smaller of both reaches the broker.

    In an app with a quorum queue each consumer has a count of its own, for good, and what a
    consumer that was cancelled still holds counts for no other. So more of them are added when the
    count rises, and all make place for a new one when it falls, or when there are too many.
    """

    def __init__(self, consumer: Any) -> None:  # noqa: ANN401 - Celery's
        """Cap what *consumer*, whose task consumer and QoS are new, tells its channel."""
        self._consumer = consumer
        self._set = consumer.qos.callback
        self._asked: int = consumer.qos.value
        self._told: int = self._asked
        self._cap: int | None = None
        self._more: list[Any] = []
        consumer.qos.callback = self

    def __call__(self, *, prefetch_count: int) -> None:
        """Take what Celery wants; it may be `NO_LIMIT`.

        A job with an ETA holds a message and does not run: room for another is made at once, or
        those behind it would wait until then. That there is too much of it can wait for `settle`.
        """
        self._asked = prefetch_count
        wanted, consumed = self._wanted(), self._consumed()
        if not self.is_static or not consumed:
            self._tell(wanted)
        elif wanted > self._told != NO_LIMIT:
            self._fit(wanted, consumed)

    def limit(self, jobs: int, *, full: int) -> None:
        """Let *jobs* be in flight of *full*, which is no limit."""
        self._cap = jobs if jobs < full else None
        self.settle()

    def settle(self) -> None:
        """Let as many messages be in flight as are wanted now."""
        wanted, consumed = self._wanted(), self._consumed()
        if self.is_static and consumed:
            self._follow()
            self._fit(wanted, consumed)
            return
        self.end()
        if wanted != self._told:
            self._tell(wanted)

    def end(self) -> None:
        """Cancel the consumers that were added to Celery's own."""
        more, self._more = self._more, []
        for one in more:
            ignore_errors(self._consumer, one.cancel)

    def _follow(self) -> None:
        """Cancel what Celery's own consumer was told to cancel, as by remote control."""
        for one in self._more:
            for queue in one.queues:
                if not self._consumer.task_consumer.consuming_from(queue.name):
                    one.cancel_by_queue(queue.name)

    def _tell(self, count: int) -> None:
        self._set(prefetch_count=count)
        self._told = count

    def _wanted(self) -> int:
        if self._cap is None:
            return self._asked
        # Jobs with an ETA are unacknowledged as well, but do not run.
        capped = self._cap + len(scheduled_in(self._consumer))
        return min(self._asked, capped) if self._asked else capped

    def _consumed(self) -> list[str]:
        own = self._consumer.task_consumer
        return [queue.name for queue in own.queues if own.consuming_from(queue.name)]

    @property
    def is_static(self) -> bool:
        """Tell whether the broker heeds a new count for new consumers only: AMQP, quorum queues."""
        transport = self._consumer.connection.transport
        return transport.driver_type == "amqp" and not has_global_qos(self._consumer)

    def _fit(self, wanted: int, queues: Sequence[str]) -> None:
        """Let the consumers of *queues* have as many messages as *wanted*, all together."""
        if wanted == self._told:
            return
        if wanted < self._told or NO_LIMIT in {wanted, self._told}:
            self._begin_anew(wanted, queues)
        elif (room := wanted - self._told - self._left_behind()) > 0:
            if len(self._more) < MORE_MAX:
                self._add(room, queues)
            else:
                self._begin_anew(wanted, queues)

    def _begin_anew(self, wanted: int, queues: Sequence[str]) -> None:
        self.end()
        for queue in queues:
            # Not as Celery cancels: if the connection is lost now, the next one consumes them.
            self._consumer.task_consumer.cancel_by_queue(queue)
        self._tell(max(1, wanted - self._left_behind()) if wanted else NO_LIMIT)
        for queue in queues:
            self._consumer.add_task_queue(queue)

    def _add(self, room: int, queues: Sequence[str]) -> None:
        own, amqp = self._consumer.task_consumer, self._consumer.app.amqp
        self._set(prefetch_count=room)
        one = amqp.TaskConsumer(
            own.channel,
            queues=[amqp.queues[queue] for queue in queues],
            on_decode_error=self._consumer.on_decode_error,
            auto_declare=False,
        )
        one.on_message = own.on_message
        one.consume()
        self._more.append(one)
        self._tell(self._told + room)  # whoever adds a queue has it consumed with this count

    def _left_behind(self) -> int:
        """Return how many messages consumers that were cancelled still hold."""
        live = {
            tag
            for one in (self._consumer.task_consumer, *self._more)
            for tag in one._active_tags.values()  # noqa: SLF001
        }
        return sum(
            request.message.delivery_info.get("consumer_tag") not in live
            for request in self._held()
            if not request.acknowledged
        )

    def _held(self) -> set[Any]:
        """Return the jobs whose messages the worker holds, also those that wait for their ETA."""
        while True:
            with suppress(RuntimeError):  # a job of another thread ended meanwhile
                return {*reserved_requests, *scheduled_in(self._consumer)}
