"""Work beside a worker's event loop."""

import logging
import os
import threading
from typing import Any

from celery import bootsteps

from resilience.tasks.resilience import Resilience

logger = logging.getLogger(__name__)

AGAIN_SECONDS = 1.0


class BesideWorker(bootsteps.StartStopStep):
    """A thread that looks, again and again, for what is to be done.

    The worker forks its pool processes between two looks, never during one: a process forked while
    this thread holds a lock of a client would wait for that lock for ever.
    """

    thread_name = "beside-worker"

    def __init__(self, parent: Any, **options: Any) -> None:  # noqa: ANN401 - Celery's signature
        """Prepare; the thread starts with the worker."""
        super().__init__(parent, **options)
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        self._looking = threading.RLock()

    def start(self, parent: Any) -> None:  # noqa: ANN401 - Celery's signature
        """Start to look, if there is anything to look for.

        Raises:
            ConfigurationError: The app's declaration cannot work; the worker then ends.
        """
        resilience = Resilience.of(parent.app)
        if not self.wanted(resilience):
            return
        os.register_at_fork(
            before=self._looking.acquire,
            after_in_parent=self._looking.release,
            after_in_child=self._looking.release,
        )
        self._thread = threading.Thread(
            target=self._run, args=(resilience,), name=self.thread_name, daemon=True
        )
        self._thread.start()

    def stop(self, parent: Any) -> None:  # noqa: ANN401, ARG002 - Celery's signature
        """Stop to look; a look under way may take a second."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join(timeout=1.0)

    terminate = stop

    def wanted(self, resilience: Resilience) -> bool:
        """Tell whether there is anything to look for."""
        raise NotImplementedError

    def look(self, resilience: Resilience) -> float:
        """Do what is to be done; return the seconds until the next look."""
        raise NotImplementedError

    def _run(self, resilience: Resilience) -> None:
        wait = 0.0
        while not self._stopped.wait(wait):
            with self._looking:
                try:
                    wait = self.look(resilience)
                except Exception:
                    # A defect: whatever else there is to do must not end with it.
                    logger.exception("%s", self.thread_name)
                    wait = AGAIN_SECONDS
