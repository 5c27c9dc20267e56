"""What a feature costs, measured on a share of its calls against an equal control.

The means are compared as B. L. Welch does ("The generalization of 'Student's' problem when several
different population variances are involved", Biometrika 34, 1947): both sides have a variance of
their own.
"""

import math
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import partial
from random import Random, SystemRandom
from typing import Literal, NamedTuple, Self, TypeVar

from resilience.clock import SystemClock
from resilience.errors import StoreUnavailableError
from resilience.events import FeatureOrdered, Listener, announce
from resilience.flags.document import Cost, Document, TrialPlan
from resilience.flags.feature import Features
from resilience.flags.orders import Edit, end_trial, trial_edit
from resilience.levels import Level
from resilience.outcome import Outcome
from resilience.store.flags import FlagStore

T = TypeVar("T")
_random = SystemRandom()  # forked children must not draw alike
_monotonic = SystemClock.monotonic

SEND_SECONDS = 1.0
"""A process sends its samples this often at most."""
CALLS_MIN = 100
"""Fewer calls on a side conclude nothing."""
CONFIDENCE_Z = 2.5758
"""99 of 100 draws of a normal distribution lie within so many standard deviations."""
FAILURES_Z = 4.0
"""A trial stops if the shed side fails more often than the control by so many standard errors. It
is asked every second, so that a usual bound would stop many a trial by chance."""


class Sample:
    """One call that is measured: a context manager around it.

    Attributes:
        shed: Whether the feature is shed for this call; otherwise the call is part of the control.
    """

    __slots__ = ("_began", "_level", "_trial", "shed")

    def __init__(self, trial: "Trial", *, shed: bool) -> None:
        """Measure a call for *trial*."""
        self._trial = trial
        self._level = Level.FULL
        self.shed = shed

    def judge(self, value: T) -> T:
        """Return *value*, which the call returned; an `Outcome` says how good it is."""
        if isinstance(value, Outcome):
            self._level = value.level
        return value

    def __enter__(self) -> Self:
        self._began = _monotonic()
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if self._ended(error):
            self._trial.send()

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(self, _: object, error: BaseException | None, __: object) -> None:
        if self._ended(error):
            await self._trial.send_async()

    def _ended(self, error: BaseException | None) -> bool:
        level = self._level if error is None else Level.FAILED
        return self._trial.add(self.shed, _monotonic() - self._began, level)


Drawn = Literal[True] | Sample


class Trial:
    """One trial in one process."""

    def __init__(
        self, plan: TrialPlan, level: Level, store: FlagStore, dice: Random = _random
    ) -> None:
        """Follow *plan* for a feature of *level*; samples go to *store*."""
        self.plan = plan
        self._level = level
        self._store = store
        self._dice = dice
        self._samples: deque[tuple[str, float, bool]] = deque()
        self._sent = _monotonic()

    def draw(self) -> Drawn:
        """Return how to measure one more call; True: not at all, and the feature is on."""
        drawn = self._dice.random()
        if drawn >= 2 * self.plan.share:
            return True
        return Sample(self, shed=drawn < self.plan.share)

    def add(self, shed: bool, seconds: float, level: Level) -> bool:  # noqa: FBT001 - of a sample
        """Add a call that ended at *level*; tell whether it is time to send."""
        self._samples.append(("shed" if shed else "control", seconds, level > self._level))
        return _monotonic() - self._sent >= SEND_SECONDS

    def send(self) -> None:
        """Send what was measured; without the store it is lost."""
        if counts := self._taken():
            with suppress(StoreUnavailableError):
                self._store.count(self.plan.id, counts)

    async def send_async(self) -> None:
        """Do the same without blocking the event loop."""
        if counts := self._taken():
            with suppress(StoreUnavailableError):
                await self._store.count_async(self.plan.id, counts)

    def _taken(self) -> Mapping[str, float]:
        self._sent = _monotonic()
        counts: dict[str, float] = {}
        with suppress(IndexError):  # another thread may take some, too
            while True:
                side, seconds, failed = self._samples.popleft()
                for name, amount in _Side(1, seconds, seconds**2, failed)._asdict().items():
                    counts[f"{side}:{name}"] = counts.get(f"{side}:{name}", 0.0) + amount
        return counts


class TrialOrders(ABC):
    """How somebody starts and stops trials, for the whole fleet."""

    features: Features
    _store: FlagStore | None
    _listeners: Iterable[Listener]

    @abstractmethod
    def change(self, edit: Edit) -> Document:
        """Change what is agreed; see `Flags.change`."""

    def start_trial(
        self, name: str, *, actor: str, reason: str, share: float = 0.01, seconds: float = 300.0
    ) -> TrialPlan:
        """Measure what a feature costs: shed it for some calls, and measure as many others.

        The worker that leads the fleet writes the result into `document.costs`.

        A trial of the feature that runs already is given up.

        Args:
            name: Of the feature.
            actor: Who orders it.
            reason: Why.
            share: Of all calls, for which the feature is shed: more than 0, at most 0.5.
            seconds: How long, more than 0.

        Raises:
            ConfigurationError: There is no such feature, a number is out of range, or nobody
                or no reason is named.
            StoreUnavailableError: The order did not reach the fleet.
        """
        self.features.require(name, where="trial")
        plan = self.change(trial_edit(name, share, seconds, actor, reason)).trials[name]
        said = plan.model_dump(include={"until", "actor", "reason"})
        announce(FeatureOrdered(feature=name, order="trial", **said), self._listeners)
        return plan

    def stop_trial(self, name: str) -> None:
        """End the trial of a feature now, with what it has measured; harmless if none runs.

        Raises:
            StoreUnavailableError: The order did not reach the fleet.
        """
        self.change(partial(end_trial, name))

    def counted(self, plan: TrialPlan) -> Mapping[str, float]:
        """Return what all processes have measured for a trial.

        Raises:
            StoreUnavailableError: The store does not answer.
        """
        return {} if self._store is None else self._store.counted(plan.id)


class _Side(NamedTuple):
    """Sums over the calls of one side."""

    calls: float
    seconds: float
    squares: float
    failures: float

    @classmethod
    def of(cls, name: str, counts: Mapping[str, float]) -> Self:
        return cls(*(counts.get(f"{name}:{field}", 0.0) for field in cls._fields))

    @property
    def mean(self) -> float:
        return self.seconds / self.calls

    @property
    def error(self) -> float:
        """The square of the standard error of the mean."""
        spread = max(0.0, self.squares - self.seconds**2 / self.calls)
        return spread / (self.calls - 1) / self.calls


class Verdict(NamedTuple):
    """How a trial ends: what it found, in words and, if it found anything, in numbers."""

    conclusion: str
    calls: int
    cost: Cost | None = None


def judge(counts: Mapping[str, float], now: float, *, over: bool) -> Verdict | None:
    """Return how a trial with these *counts* ends; None: it goes on, as it is not *over*."""
    control, shed = _Side.of("control", counts), _Side.of("shed", counts)
    calls = int(control.calls + shed.calls)
    told = f"{shed.failures:.0f} of {shed.calls:.0f} calls without the feature failed"
    if _fails_more(shed, control):
        with_it = f"{control.failures:.0f} of {control.calls:.0f} with it"
        return Verdict(f"stopped: {told}, {with_it}", calls)
    if not over:
        return None
    if min(control.calls, shed.calls) < CALLS_MIN:
        few = f"{control.calls:.0f} calls with the feature and {shed.calls:.0f} without are too few"
        return Verdict(f"{few}; {CALLS_MIN} of each are needed", calls)
    difference, half = _welch(control, shed)
    low, high = difference - half, difference + half
    cost = Cost(seconds=difference, low=low, high=high, calls=calls, at=now)
    return Verdict(f"a call takes {difference:.4g} s less ({low:.4g} to {high:.4g})", calls, cost)


def _fails_more(shed: _Side, control: _Side) -> bool:
    """Compare two proportions by the standard error of their difference, pooled."""
    if not (shed.calls and control.calls):
        return False
    pooled = (shed.failures + control.failures) / (shed.calls + control.calls)
    error = math.sqrt(pooled * (1 - pooled) * (1 / shed.calls + 1 / control.calls))
    more = shed.failures / shed.calls - control.failures / control.calls
    return error > 0 and more > FAILURES_Z * error


def _welch(control: _Side, shed: _Side) -> tuple[float, float]:
    """Return the difference of the means, and half the width of its 99 % confidence interval."""
    error = control.error + shed.error
    parts = control.error**2 / (control.calls - 1) + shed.error**2 / (shed.calls - 1)
    freedom = error**2 / parts if parts > 0 else math.inf
    # Student's t by its first term beyond the normal one, exact to 0.1 % from 100 calls on.
    t = CONFIDENCE_Z + (CONFIDENCE_Z**3 + CONFIDENCE_Z) / (4 * freedom)
    return control.mean - shed.mean, t * math.sqrt(error)
