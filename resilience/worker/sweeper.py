"""Ends fan-outs whose caller is gone, so that their callback runs all the same."""

import logging

from resilience.errors import StoreUnavailableError
from resilience.tasks.resilience import Resilience
from resilience.tasks.response import deliver_callback
from resilience.worker.beside import BesideWorker

logger = logging.getLogger(__name__)

CLOCK_SECONDS = 20.0
"""How old what the worker knows of the fleet's time may be."""
LOOK_SECONDS = 0.25
"""How often a worker looks for fan-outs that are due, at the least."""


class FanInSweeper(BesideWorker):
    """Ends due fan-outs and publishes their callbacks.

    Every worker runs one; who takes a fan-out has it for two seconds, then another may.
    """

    thread_name = "fan-in-sweeper"

    def wanted(self, resilience: Resilience) -> bool:
        """Tell whether there is a store to look into, and say so if not.

        Raises:
            ConfigurationError: The app's declaration cannot work.
        """
        resilience.check_tasks()
        why_not = resilience.why_no_store
        if why_not is not None:
            logger.warning(
                "%s; until then no fan-outs, no remembered answers, and breakers that decide alone",
                why_not,
            )
            return False
        resilience.fleet_time()
        return True

    def look(self, resilience: Resilience) -> float:
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
