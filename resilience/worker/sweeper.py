"""Ends fan-outs whose caller is gone, so that their callback runs all the same."""

import logging
import os
import threading
from typing import Any

from celery import bootsteps

from resilience.errors import StoreUnavailableError
from resilience.tasks.resilience import Resilience
from resilience.tasks.response import deliver_callback

logger = logging.getLogger(__name__)

CLOCK_SECONDS = 20.0
"""How old what the worker knows of the fleet's time may be."""
LOOK_SECONDS = 0.25
"""How often a worker looks for fan-outs that are due, at the least."""


class FanInSweeper(bootsteps.StartStopStep):
    """A thread beside the worker's event loop that ends due fan-outs and publishes callbacks.

    Every worker runs one; who takes a fan-out has it for two seconds, then another may.

    The worker forks its pool processes between two looks, never during one: a process forked while
    this thread holds a lock of a client would wait for that lock for ever.
    """

    def __init__(self, parent: Any, **options: Any) -> None:  # noqa: ANN401 - Celery's signature
        """Prepare; the thread starts with the worker."""
        super().__init__(parent, **options)
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        self._looking = threading.RLock()

    def start(self, parent: Any) -> None:  # noqa: ANN401 - Celery's signature
        """Start to look, if there is a store to look into.

        Raises:
            ConfigurationError: The app's declaration cannot work; the worker then ends.
        """
        resilience = Resilience.of(parent.app)
        resilience.check_tasks()
        why_not = resilience.why_no_store
        if why_not is not None:
            logger.warning(
                "%s; until then no fan-outs, no remembered answers, and breakers that decide alone",
                why_not,
            )
            return
        resilience.fleet_time()
        os.register_at_fork(
            before=self._looking.acquire,
            after_in_parent=self._looking.release,
            after_in_child=self._looking.release,
        )
        self._thread = threading.Thread(
            target=self._sweep, args=(resilience,), name="fan-in-sweeper", daemon=True
        )
        self._thread.start()

    def stop(self, parent: Any) -> None:  # noqa: ANN401, ARG002 - Celery's signature
        """Stop to look."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join(timeout=LOOK_SECONDS)

    terminate = stop

    def _sweep(self, resilience: Resilience) -> None:
        wait = LOOK_SECONDS
        while not self._stopped.wait(wait):
            with self._looking:
                wait = self._look(resilience)

    def _look(self, resilience: Resilience) -> float:
        """End what is due; return the seconds until the next look."""
        # Here, so that the event loop, which reads it for each job, never has to ask.
        resilience.fleet_time(older=CLOCK_SECONDS)
        try:
            fans, next_due = resilience.fan_in.take_due()
        except StoreUnavailableError:
            return LOOK_SECONDS  # the store said so once; look again
        for fan in fans:
            self._end(resilience, fan)
        return LOOK_SECONDS if next_due is None else min(next_due, LOOK_SECONDS)

    def _end(self, resilience: Resilience, fan: str) -> None:
        try:
            resilience.fan_in.finish(fan, "deadline")
            deliver_callback(resilience, fan)
        except StoreUnavailableError:
            return
        except Exception:
            # One that cannot be published must not keep the others from theirs.
            logger.exception("callback of fan-out %s", fan)
