"""The slot of one call, and the line of calls in one process."""

import os
from collections.abc import Callable
from uuid import uuid4


class Lease:
    """One call's claim on a slot. Flags are set in one step, so a cut between two finds all true.

    Attributes:
        owner: Its name in the store.
        pid: The process it belongs to; a forked child copies it, but must not touch it.
        dependency: Whose slot.
        slots: How many there are.
        ring: Wakes the caller while it stands in line.
        asked: Whether the store may know of it.
        running: Whether the call was let through.
        counted: Whether the store holds a lease for it, as far as is known.
        done: Whether the call has ended; whoever finds it gives the slot back.
    """

    __slots__ = (
        "asked",
        "counted",
        "dependency",
        "done",
        "owner",
        "pid",
        "ring",
        "running",
        "slots",
    )

    def __init__(self, dependency: str, slots: int, ring: Callable[[], object]) -> None:
        self.owner = uuid4().hex
        self.pid = os.getpid()
        self.dependency = dependency
        self.slots = slots
        self.ring = ring
        self.asked = self.running = self.counted = self.done = False


class Line:
    """Calls of one process in the order they came: the first *places* of them are served.

    No lock: each step is one operation on a dict, which a cut or a switch of threads cannot halve.
    """

    def __init__(self, places: int) -> None:
        """Begin empty."""
        self._places = places
        self._pid = os.getpid()
        self._standing: dict[str, Lease] = {}

    def join(self, lease: Lease) -> None:
        """Stand at the end."""
        if self._pid != lease.pid:  # forked: those who stand here are the parent's
            self._standing, self._pid = {}, lease.pid
        self._standing[lease.owner] = lease

    def serves(self, lease: Lease, *, sparing: int = 0) -> bool:
        """Tell whether it is *lease*'s turn, *sparing* places; it stays so until it leaves."""
        return lease in self._served()[: self._places - sparing]

    def leave(self, lease: Lease) -> None:
        """Make room, and wake who is served now."""
        # It may be out already: whoever looked since it was done has removed it, and woke nobody.
        self._standing.pop(lease.owner, None)
        for one in self._served():
            if not one.running:
                one.ring()

    def _served(self) -> list[Lease]:
        standing = list(self._standing.values())
        for one in standing:
            if one.done:  # its caller was cut on its way out
                self._standing.pop(one.owner, None)
        return [one for one in standing if not one.done][: self._places]
