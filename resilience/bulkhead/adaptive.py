"""A limit of jobs at once that follows the latency of the dependency.

The gradient controller of Envoy's adaptive concurrency filter
(https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_filters/adaptive_concurrency_filter),
for tens of jobs at once instead of hundreds: without its lower bound of the gradient, with which
no limit falls below four, and with a sample of jobs that all began under the present limit instead
of all that ended within a tenth of a second.
"""

import math
import random
import statistics
from collections import deque
from typing import Annotated

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

GRADIENT_MAX = 2.0
SAMPLES = 5
"""Fewer jobs say too little."""
JITTER = 0.15
"""The time between two measurements is longer by up to so much, at random, or all workers of a
fleet would slow down together."""
MEASURE_SECONDS_MAX = 10.0
"""A measurement ends after so long with what it has, if that is one job or more."""
LEAST_IN_A_ROW = 5
"""A limit that stays at the minimum for so many updates is a sign of a measurement out of date."""


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class AdaptiveConcurrency:
    """Lets a worker run fewer jobs at once while more of them only make its dependency slower.

    Attributes:
        minimum: Jobs at once that are always allowed, at least 1; also while the latency of the
            idle dependency is measured.
        buffer: Share of that latency by which jobs may take longer before there are fewer of them,
            in [0, 10].
        measure_seconds: So often that latency is measured again, more than 0, up to a day.

    Raises:
        pydantic.ValidationError: A value is out of range, or an option is unknown.
    """

    minimum: Annotated[int, Field(ge=1)] = 1
    buffer: Annotated[float, Field(ge=0, le=10)] = 0.25
    measure_seconds: Annotated[float, Field(gt=0, le=86_400)] = 60.0


def next_limit(limit: float, *, best: float, sample: float, buffer: float) -> float:
    """Return gradient x *limit* + the root of *limit*.

    Args:
        limit: Jobs at once until now.
        best: Seconds that a job took when hardly any other ran.
        sample: Seconds that a job takes now.
        buffer: Share of *best* that is no sign of a queue.
    """
    gradient = min(GRADIENT_MAX, best * (1.0 + buffer) / max(sample, 1e-6))
    return gradient * limit + math.sqrt(limit)


class AdaptiveLimit:
    """The limit of one worker.

    `observe` may be called by any thread, `at` by one.
    """

    def __init__(self, options: AdaptiveConcurrency, *, maximum: int, dice: random.Random) -> None:
        """Begin with a measurement.

        Args:
            options: How it follows.
            maximum: Jobs at once as declared.
            dice: Where jitter comes from.
        """
        self._options = options
        self._maximum = maximum
        self._dice = dice
        self._seen: deque[tuple[float, float]] = deque(maxlen=10 * maximum + 100)
        self._sample: list[float] = []
        self._limit = float(self._least)
        self._best: float | None = None
        self._measuring = True
        self._since = float("-inf")
        self._measure_at = float("inf")
        self._at_least = 0

    @property
    def _least(self) -> int:
        return min(self._options.minimum, self._maximum)

    def observe(self, began: float, ended: float, *, ok: bool) -> None:
        """Note a job that ran from *began* to *ended*, monotonic seconds.

        One that failed faster than good ones are says nothing of how busy the dependency is.
        """
        if ok or (self._best is not None and ended - began >= self._best):
            self._seen.append((began, ended))

    def at(self, now: float) -> int:
        """Return how many jobs may run at once at *now*, `minimum` to the maximum."""
        while self._seen:
            began, ended = self._seen.popleft()
            if began >= self._since:
                self._sample.append(ended - began)
        if self._since == float("-inf"):
            self._since = now
        if self._measuring:
            self._measure(now)
        elif now >= self._measure_at:
            self._begin(now, measuring=True)
        elif self._best is not None and len(self._sample) >= max(SAMPLES, self._limit):
            self._update(now, self._best)
        return self._least if self._measuring else int(self._limit)

    def _measure(self, now: float) -> None:
        enough = len(self._sample) >= SAMPLES
        if not enough and not (self._sample and now - self._since >= MEASURE_SECONDS_MAX):
            return
        self._best = statistics.median(self._sample)
        wait = self._options.measure_seconds * (1.0 + JITTER * self._dice.random())
        self._measure_at = now + wait
        self._begin(now, measuring=False)

    def _update(self, now: float, best: float) -> None:
        sample = statistics.median(self._sample)
        wanted = next_limit(self._limit, best=best, sample=sample, buffer=self._options.buffer)
        self._limit = min(float(self._maximum), max(float(self._least), wanted))
        low = int(self._limit) <= self._least < self._maximum
        self._at_least = self._at_least + 1 if low else 0
        self._begin(now, measuring=self._at_least >= LEAST_IN_A_ROW)

    def _begin(self, now: float, *, measuring: bool) -> None:
        """Wait for a sample of jobs that begin from now on."""
        self._sample, self._since, self._measuring = [], now, measuring
        if measuring:
            self._at_least = 0
