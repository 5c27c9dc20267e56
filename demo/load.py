"""How many processors other programs than the demo and its shop are using."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from time import perf_counter

import psutil


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What others used since the reading before.

    Attributes:
        began: When that one was taken, on the clock of `perf_counter`.
        ended: When this one was taken.
        others: Processors busy with other programs in between, on average.
    """

    began: float
    ended: float
    others: float


class LoadMeter:
    """Reads the processor time of the machine and of some processes of ours.

    Others are whoever used what ours did not; what a hypervisor took away ("steal") counts as used
    by others, too.
    """

    def __init__(self, ours: Callable[[], Iterable[psutil.Process]]) -> None:
        """Prepare.

        Args:
            ours: Returns the processes that are not others, as of now.
        """
        self._ours = ours
        self._seen: dict[int, float] = {}
        self._last = perf_counter(), self._others_seconds()

    def read(self) -> Reading:
        """Return what others used since the last reading, or since this meter was made."""
        began, before = self._last
        self._last = ended, now = perf_counter(), self._others_seconds()
        return Reading(began=began, ended=ended, others=max(0.0, now - before) / (ended - began))

    def _others_seconds(self) -> float:
        times = psutil.cpu_times()
        busy = times.user + times.nice + times.system + getattr(times, "steal", 0.0)
        for process in self._ours():
            # A process that has ended keeps the time it was last seen to have used.
            self._seen[process.pid] = processor_seconds(process) or self._seen.get(process.pid, 0)
        return busy - sum(self._seen.values())


def processor_seconds(process: psutil.Process) -> float:
    """Return the processor time that *process* has used; 0 once it has ended."""
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return times.user + times.system
