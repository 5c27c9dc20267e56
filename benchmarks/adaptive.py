"""How well the adaptive limit follows a dependency, in simulated time.

The dependency serves a number of jobs at once, its capacity, in 50 ms each. More jobs slow each
other down.
"""

import heapq
import random
from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.figure import Figure
from resilience import AdaptiveConcurrency
from resilience.bulkhead import AdaptiveLimit

JOB_SECONDS = 0.05
MAXIMUM = 32
SECONDS = 120.0
SETTLED = 20.0
"""Jobs that end before this time do not count."""
STEP = 0.01
LATENCY_BOUND = 2.2
"""Of the time that a job takes when no other runs."""
THROUGHPUT_BOUND = 0.85
"""Of the jobs that the dependency can serve."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What became of the jobs: mean seconds per job, and jobs per second."""

    latency: float
    throughput: float


def run(*, quick: bool) -> Iterator[Figure]:
    """Simulate; *quick* takes fewer seeds."""
    for capacity in (4, 16, MAXIMUM):
        seen = [_simulated(capacity, seed) for seed in range(2 if quick else 10)]
        full = capacity / JOB_SECONDS
        yield Figure(
            name=f"adaptive_latency_capacity_{capacity}",
            value=max(one.latency for one in seen) / JOB_SECONDS,
            unit="ratio",
            bound=LATENCY_BOUND,
            sides={"without": MAXIMUM / capacity},
        )
        yield Figure(
            name=f"adaptive_throughput_capacity_{capacity}",
            value=min(one.throughput for one in seen) / full,
            unit="ratio",
            bound=THROUGHPUT_BOUND,
            least=True,
        )


def _simulated(capacity: int, seed: int) -> Seen:
    dice = random.Random(seed)  # noqa: S311 - so that it can be repeated
    limit = AdaptiveLimit(AdaptiveConcurrency(), maximum=MAXIMUM, dice=dice)
    running: list[tuple[float, float]] = []
    took: list[float] = []
    for turn in range(round(SECONDS / STEP)):
        now = turn * STEP
        while running and running[0][0] <= now:
            ended, began = heapq.heappop(running)
            limit.observe(began, ended, ok=True)
            if now > SETTLED:
                took.append(ended - began)
        for _ in range(limit.at(now) - len(running)):
            crowd = max(1.0, (len(running) + 1) / capacity)
            seconds = JOB_SECONDS * crowd * dice.uniform(0.9, 1.1)
            heapq.heappush(running, (now + seconds, now))
    return Seen(latency=sum(took) / len(took), throughput=len(took) / (SECONDS - SETTLED))
