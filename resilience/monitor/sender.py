"""Sends events of Celery from a process that is no worker."""

import atexit
import os
import queue
import threading
from typing import Any, Final

from celery import Celery
from kombu.utils.limits import TokenBucket

from resilience.text import get_logger

MOST: Final = 1000
"""Events that wait for a broker; what comes beyond them is dropped."""
LAST_SECONDS: Final = 1.0
"""A process that ends waits so long for its last events."""
WARNINGS: Final = 1 / 60
"""Warnings a second."""

logger = get_logger("resilience")


class Sender:
    """A thread with a connection of its own, started by the first event of a process."""

    wanted: Final = True
    """Nobody can be asked whether somebody listens."""

    def __init__(self, app: Celery[Any]) -> None:
        """Send to the broker of *app*."""
        self._app = app
        self._pid = 0
        self._warns = TokenBucket(WARNINGS)
        self._waiting: queue.Queue[dict[str, Any]] = queue.Queue(MOST)

    def put(self, message: dict[str, Any]) -> None:
        """Let the thread send *message*, or drop it if too many wait."""
        if self._pid != os.getpid():  # a forked process has no thread, and another's queue
            self._pid, self._waiting = os.getpid(), queue.Queue(MOST)
            threading.Thread(target=self._run, name="resilience-events", daemon=True).start()
            atexit.register(self._finish)
        try:
            self._waiting.put_nowait(message)
        except queue.Full:
            self._warn("more came than the broker took")

    def _run(self) -> None:
        """Send until something fails, and then anew; the event that is being sent then is lost."""
        while True:
            try:
                with self._app.connection_for_write() as connection:
                    sending = self._app.events.Dispatcher(connection, buffer_while_offline=False)
                    self._serve(sending)
            except Exception as error:  # noqa: BLE001 - whatever the way to the broker raises
                self._warn(repr(error))

    def _serve(self, sending: Any) -> None:  # noqa: ANN401 - Celery's
        while True:
            message = self._waiting.get()
            try:
                sending.send(**message)
            finally:
                self._waiting.task_done()

    def _finish(self) -> None:
        waiting = self._waiting
        with waiting.all_tasks_done:
            waiting.all_tasks_done.wait_for(lambda: not waiting.unfinished_tasks, LAST_SECONDS)

    def _warn(self, why: str) -> None:
        if self._warns.can_consume():
            logger.warning("events of Celery were not sent: %s", why)
