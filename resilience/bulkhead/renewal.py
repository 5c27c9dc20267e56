"""Renews the leases of one process, all in one exchange."""

import os
import threading
from collections.abc import Iterable
from contextlib import suppress

from resilience.bulkhead.lease import Lease
from resilience.errors import StoreUnavailableError
from resilience.events import Listener, SlotLost, announce, log_event
from resilience.store.slots import SlotStore

BEAT_SECONDS = 1.0


class Renewal:
    """A thread that renews what runs and gives back what was cut on its way out.

    Started with the first lease, ends when there is none. A process without calls in flight has
    none; a forked child starts its own.
    """

    def __init__(self, store: SlotStore, *, listeners: Iterable[Listener] = (log_event,)) -> None:
        """Start with no thread."""
        self._store = store
        self._listeners = listeners
        self._watched: dict[str, Lease] = {}
        self._thread: threading.Thread | None = None
        self._bell = threading.Lock()

    def watch(self, lease: Lease) -> None:
        """Keep *lease* alive from now on until it is done."""
        self._watched[lease.owner] = lease
        self._run()

    def forget(self, lease: Lease) -> bool:
        """Leave *lease* alone: it has been given back. Return whether it was watched till now."""
        return self._watched.pop(lease.owner, None) is not None

    def hasten(self, lease: Lease) -> None:
        """Give *lease*, which is done, back at once but not in the caller's thread."""
        self.watch(lease)
        with suppress(RuntimeError):  # it rings already
            self._bell.release()

    def lost(self, lease: Lease, *, retaken: bool) -> None:
        """Tell that a running call had no lease any more."""
        announce(SlotLost(dependency=lease.dependency, retaken=retaken), self._listeners)

    def beat(self) -> None:
        """Renew what runs, and give back what is done."""
        pid, running = os.getpid(), []
        for lease in list(self._watched.values()):
            if lease.pid != pid:  # the parent's
                self.forget(lease)
            elif lease.done:
                self._give_back(lease)
            elif lease.running:
                running.append(lease)
        if not running:
            return
        with suppress(StoreUnavailableError):
            answers = self._store.renew([(o.dependency, o.owner, o.slots) for o in running])
            for lease, answer in zip(running, answers, strict=True):
                if lease.done:  # it has left meanwhile, maybe before it was taken again
                    self._give_back(lease)
                    continue
                if lease.counted and answer != 1:
                    self.lost(lease, retaken=bool(answer))
                lease.counted = bool(answer)

    def _give_back(self, lease: Lease) -> None:
        # One try: nobody renews it, so it ends by itself.
        self.forget(lease)
        with suppress(StoreUnavailableError):
            self._store.leave(lease.dependency, lease.owner, lease.slots)

    def _run(self) -> None:
        thread = self._thread
        if thread is None or not thread.is_alive():
            self._thread = thread = threading.Thread(
                target=self._serve, name="slot-renewal", daemon=True
            )
            with suppress(RuntimeError):  # there may be none to be had; the next lease tries again
                thread.start()

    def _serve(self) -> None:
        me = threading.current_thread()
        while self._thread is me:
            self._bell.acquire(timeout=BEAT_SECONDS)  # as a timer that can be rung
            if not self._watched:
                self._thread = None
                if not self._watched:  # who came before the line above saw this thread
                    return
                self._thread = me
            self.beat()
