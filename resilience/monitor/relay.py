"""Passes events from the processes of a worker to those who listen to its Celery events."""

from collections import deque
from typing import Any, Final

from celery import bootsteps
from celery.worker.state import requests
from kombu.utils.limits import TokenBucket

from resilience.broker.beside import Outage
from resilience.monitor.celery_events import CeleryEvents, Channel
from resilience.tasks.resilience import Resilience
from resilience.text import get_logger

LISTENED_SECONDS: Final = 0.1
"""Time between two looks while somebody listens."""
ALONE_SECONDS: Final = 1.0
"""Time between two looks while nobody does."""
MOST: Final = 1000
"""Events that may wait for the end of their jobs; each one more drops the oldest."""
WARNINGS: Final = 1 / 60
"""Warnings a second."""

logger = get_logger("resilience")


class EventRelay(bootsteps.StartStopStep):
    """Sends what the processes of the worker put into the channel, on the worker's own timer.

    An event of a task waits until its job has ended. Otherwise a listener such as Flower would show
    a state that Celery does not know in place of the job's own.
    """

    requires = ("celery.worker.consumer.events:Events",)

    def __init__(self, parent: Any, **options: Any) -> None:  # noqa: ANN401 - Celery's signature
        """Open the channel: the pool has not forked yet."""
        super().__init__(parent, **options)
        listeners = Resilience.of(parent.app).listeners
        self._own = [each for each in listeners if isinstance(each, CeleryEvents)]
        self._channel = Channel()
        for listener in self._own:
            listener.channel = self._channel
        self._pending: deque[dict[str, Any]] = deque(maxlen=MOST)
        self._lost = 0
        self._warns = TokenBucket(WARNINGS)
        begins, ends = "events of Celery were not sent", "events of Celery are sent again"
        self._outage = Outage(logger, begins, ends)
        self._timer: Any = None

    def start(self, parent: Any) -> None:  # noqa: ANN401 - Celery's signature
        """Look from now on; called again after each reconnect."""
        self.stop(parent)
        self._again(parent)

    def stop(self, _: Any) -> None:  # noqa: ANN401 - Celery's signature
        """Look no more until `start`."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def shutdown(self, parent: Any) -> None:  # noqa: ANN401 - Celery's signature
        """Send the last events, and listen no more."""
        self.stop(parent)
        self._look(parent)
        for listener in self._own:
            listener.channel = None
        self._channel.close()

    def _again(self, consumer: Any) -> None:  # noqa: ANN401 - Celery's
        self._look(consumer)
        wait = LISTENED_SECONDS if self._channel.wanted else ALONE_SECONDS
        self._timer = consumer.timer.call_after(wait, self._again, (consumer,))

    def _look(self, consumer: Any) -> None:  # noqa: ANN401 - Celery's
        try:
            self._pass_on(consumer)
        except Exception as error:  # noqa: BLE001 - whatever it is, the next look goes on
            self._outage.note(error)
        if self._lost and self._warns.can_consume():
            logger.warning("%d events of Celery were dropped", self._lost)
            self._lost = 0

    def _pass_on(self, consumer: Any) -> None:  # noqa: ANN401 - Celery's
        dispatcher = consumer.event_dispatcher
        self._channel.wanted = dispatcher is not None and _wants_events_of_tasks(dispatcher)
        while (taken := self._channel.take()) is not None:
            dropped, message = taken
            self._lost += dropped + (len(self._pending) == MOST)
            self._pending.append(message)
        if self._channel.wanted:
            for _ in range(len(self._pending)):
                message = self._pending.popleft()
                if message.get("uuid") in requests:
                    self._pending.append(message)
                else:
                    self._send(dispatcher, message)

    def _send(self, dispatcher: Any, message: dict[str, Any]) -> None:  # noqa: ANN401 - Celery's
        """Send *message*; one that cannot be sent is lost, so that it holds up none behind it."""
        try:
            if message["type"].startswith("task-"):
                dispatcher.send(**message)  # behind what Celery has buffered about the job
            else:  # `send` knows no group but those that Celery turns on
                dispatcher.publish(message.pop("type"), message, dispatcher.producer)
        except Exception:
            self._lost += 1
            raise
        self._outage.note(None)


def _wants_events_of_tasks(dispatcher: Any) -> bool:  # noqa: ANN401 - Celery's
    """Tell whether task events are on, by the command line or by somebody who listens."""
    return bool(dispatcher.enabled and (not dispatcher.groups or "task" in dispatcher.groups))
