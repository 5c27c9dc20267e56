"""Ends fan-outs whose caller is gone, so that their callback runs all the same."""

from resilience.clock import SystemClock
from resilience.errors import StoreUnavailableError
from resilience.tasks.resilience import Resilience
from resilience.tasks.response import deliver_callback
from resilience.text import get_logger
from resilience.worker.beside import BesideWorker
from resilience.worker.lookout import ORDERS_SECONDS, pulse_seconds

logger = get_logger(__name__)

CLOCK_SECONDS = 20.0
"""How old the fleet's time that this worker uses may be."""
LOOK_SECONDS = 0.25
"""How often a worker that takes parts of fan-outs looks for those that are due."""
IDLE_SECONDS = 1.0
"""How often a worker without parts looks, unless it knows of a fan-out that is due before."""


class FanInSweeper(BesideWorker):
    """Ends due fan-outs and publishes their callbacks.

    Every worker runs one. A worker that takes a due fan-out has two seconds to end it; then another
    worker may take it. Workers that run parts look more often, so that a fan-out with a budget
    below a second ends in time as well.

    A worker without a `Lookout` of its own asks here which queues are to be held, so that one
    thread wakes up for both.
    """

    thread_name = "fan-in-sweeper"
    _has_new_parts = False
    _looks_often = False
    _asks_orders = False
    _ask_at = float("-inf")

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
        self._asks_orders = pulse_seconds(resilience) is None
        resilience.fleet_time()
        resilience.note_part = self._note_part
        return True

    def _note_part(self) -> None:
        self._has_new_parts = True
        if not self._looks_often:
            self.hasten()

    def look(self, resilience: Resilience) -> float:
        """Ask for orders and end what is due; return the seconds until the next look."""
        try:
            orders = self._ask(resilience)
        finally:
            until_due = self._sweep(resilience)
        return min(orders, until_due)

    def _ask(self, resilience: Resilience) -> float:
        """Ask for orders if it is time; return the seconds until it is so again."""
        if not self._asks_orders:
            return float("inf")
        now = SystemClock.monotonic()
        if now >= self._ask_at:
            self._ask_at = now + ORDERS_SECONDS
            resilience.holds.look()
        return self._ask_at - now

    def _sweep(self, resilience: Resilience) -> float:
        self._looks_often = False  # cleared first: a part that is noted from here on hastens a look
        has_parts, self._has_new_parts = self._has_new_parts, False
        self._looks_often = has_parts
        # Here, so that the event loop, which reads it for each job, never has to ask.
        now = resilience.fleet_time(older=CLOCK_SECONDS)
        try:
            due = resilience.fan_in.next_due()
            wait = None if due is None else due - now
            if wait is not None and wait <= 0:
                fans, wait = resilience.fan_in.take_due()
                for fan in fans:
                    self._end(resilience, fan)
                    self._ask(resilience)  # a callback may have waited for the broker
        except StoreUnavailableError:
            return LOOK_SECONDS  # it was announced; look again
        longest = LOOK_SECONDS if has_parts else IDLE_SECONDS
        return longest if wait is None else min(wait, longest)

    def _end(self, resilience: Resilience, fan: str) -> None:
        try:
            resilience.fan_in.finish(fan, "deadline")
            deliver_callback(resilience, fan)
        except StoreUnavailableError:
            return
        except Exception:
            # One that cannot be published must not keep the others from theirs.
            logger.exception("callback of fan-out %s", fan)
