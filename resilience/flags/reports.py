"""What workers report about their hosts and jobs, and what that amounts to."""

import math
import os
import statistics
from collections import Counter, deque
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from resilience.clock import Clock, SystemClock

WINDOW_SECONDS = 10.0
"""Length of the window."""
JOBS_MAX = 20_000
"""Most begins and ends of jobs that one worker counts in the window."""
JOBS_MIN = 5
"""Fewer jobs of the whole fleet shed nothing: one slow job is no trend."""
GROWTH = 1.1
"""A bucket of the histogram holds times up to so many times longer than the one before."""
PRESSURE = Path("/proc/pressure/cpu")

Kind = Literal["waits", "runs"]
Bucket = Annotated[int, Field(ge=-200, le=200)]
Histogram = dict[str, dict[Bucket, Annotated[int, Field(ge=0, le=JOBS_MAX)]]]
"""Jobs by dependency and by bucket: the logarithm of their seconds to the base `GROWTH`."""


class Report(BaseModel):
    """What one worker has seen; another version of this library may write more.

    Attributes:
        host: Where it runs.
        load: Of that host, in the unit of `SheddingPolicy.load`.
        waits: How long jobs waited in their queues.
        runs: How long they ran.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    host: Annotated[str, Field(max_length=255)]
    load: Annotated[float, Field(ge=0, le=1)]
    waits: Histogram = {}
    runs: Histogram = {}

    @classmethod
    def all_of(cls, texts: Iterable[bytes]) -> list[Self]:
        """Return what workers wrote, without what none of them can have written."""
        found = []
        for text in texts:
            with suppress(ValidationError):
                found.append(cls.model_validate_json(text))
        return found


class JobTimes:
    """How long the jobs of one worker waited and ran; any thread may count."""

    def __init__(self, clock: Clock | None = None) -> None:
        """Have seen none."""
        self._monotonic = (clock or SystemClock()).monotonic
        self._seen: deque[tuple[float, Kind, str, float]] = deque(maxlen=JOBS_MAX)

    def count(self, kind: Kind, dependency: str, seconds: float) -> None:
        """Count a job of *dependency* that waited, or ran, for so many seconds."""
        self._seen.append((self._monotonic(), kind, dependency, seconds))

    def report(self, host: str) -> Report:
        """Return what is to be reported about *host* and the jobs of the last ten seconds."""
        since = self._monotonic() - WINDOW_SECONDS
        found: dict[Kind, Histogram] = {"waits": {}, "runs": {}}
        for at, kind, dependency, seconds in self._seen.copy():
            if at >= since:
                bucket = min(math.ceil(math.log(max(seconds, 1e-6), GROWTH)), 200)
                counts = found[kind].setdefault(dependency, {})
                counts[bucket] = counts.get(bucket, 0) + 1
        return Report(host=host, load=host_load(), waits=found["waits"], runs=found["runs"])


def p95(histograms: Iterable[Histogram], dependency: str) -> tuple[float, int]:
    """Return the 95th percentile of the seconds of jobs, within 5 %, and the number of jobs.

    Both are 0 if there were no jobs.
    """
    counts: Counter[int] = Counter()
    for one in histograms:
        counts.update(one.get(dependency, {}))
    jobs = slower = sum(counts.values())
    for bucket in sorted(counts):
        slower -= counts[bucket]
        if slower <= jobs * 0.05:
            return float(GROWTH ** (bucket - 0.5)), jobs
    return 0.0, 0


def median_load(reports: Iterable[Report]) -> float:
    """Return the load of the median host; NaN: no worker has reported."""
    hosts = {one.host: one.load for one in reports}
    return statistics.median(hosts.values()) if hosts else math.nan


def host_load() -> float:
    """Return the load of this host, in the unit of `SheddingPolicy.load`."""
    with suppress(OSError, ValueError, IndexError):
        return min(1.0, float(PRESSURE.read_text().split("avg10=")[1].split()[0]) / 100)
    share = os.getloadavg()[0] / (os.cpu_count() or 1)
    return min(1.0, max(0.0, share - 1.0))
