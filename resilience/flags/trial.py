"""What a feature costs, measured on a share of its calls against an equal control.

The means are compared as B. L. Welch does ("The generalization of 'Student's' problem when several
different population variances are involved", Biometrika 34, 1947): both sides have a variance of
their own.
"""

import math
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable, Mapping
from contextlib import nullcontext, suppress
from functools import partial
from random import Random, SystemRandom
from threading import Thread
from typing import ClassVar, Final, NamedTuple, Self, TypeVar

from resilience.clock import SystemClock
from resilience.errors import (
    FeatureShedError,
    RejectedError,
    StoreUnavailableError,
    is_any_of,
)
from resilience.events import FeatureOrdered, Listener, TrialEnded, announce
from resilience.flags.document import Cost, Document, TrialPlan
from resilience.flags.feature import Features
from resilience.flags.orders import Edit, end_trial, trial_edit
from resilience.levels import Level
from resilience.outcome import Outcome
from resilience.steering import Neutral
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


class Draw(nullcontext[None]):
    """How one call of a feature is made: a context manager around the call.

    Attributes:
        shed: Whether the call is made without the feature.
        trial: Whether a trial measures the call.
    """

    trial: ClassVar[bool] = False

    def __init__(self, *, shed: bool) -> None:
        """Make a call with the feature, or without it."""
        super().__init__()
        self.shed = shed

    def judge(self, value: T) -> T:
        """Return *value*, which the call returned."""
        return value


ON: Final = Draw(shed=False)
SHED: Final = Draw(shed=True)


class Sample(Draw):
    """One call that a trial measures, with the feature as control or without it.

    A call counts for neither side if it ends in an error that the feature's absence cannot cause.
    """

    trial = True

    def __init__(self, trial: "Trial", *, shed: bool) -> None:
        """Measure a call for *trial*, which begins now."""
        super().__init__(shed=shed)
        self._trial = trial
        self._level = Level.FULL
        self._began = _monotonic()

    def judge(self, value: T) -> T:
        """Return *value*, which the call returned; an `Outcome` says how good it is."""
        if isinstance(value, Outcome):
            self._level = value.level
        return value

    def __exit__(self, *raised: object) -> None:
        if self._add(raised[1]):
            self._trial.send()

    async def __aexit__(self, *raised: object) -> None:
        if self._add(raised[1]):
            await self._trial.send_async()

    def _add(self, error: object) -> bool:
        """Add the call to the trial unless it is neutral; tell whether it is time to send."""
        level = self._level
        # A shed call without fallbacks raises what it promises.
        if error is not None and not (self.shed and isinstance(error, FeatureShedError)):
            # What is no `Exception` cancels the call, or ends the process.
            if not isinstance(error, Exception) or is_any_of(error, (Neutral, RejectedError)):
                return False
            level = Level.FAILED
        return self._trial.add(self.shed, _monotonic() - self._began, level)


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
        self._sent = float("-inf")  # the first call is sent: its process may live no longer

    def draw(self) -> Draw:
        """Return how to make one more call: most are made with the feature and not measured."""
        drawn = self._dice.random()
        if drawn >= 2 * self.plan.share:
            return ON
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

    def finish(self) -> None:
        """Send the last samples from a thread, as the caller must not wait."""
        if self._samples:
            with suppress(RuntimeError):  # there may be no thread to be had
                Thread(target=self.send, name="trial-samples", daemon=True).start()

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
    """The part of `Flags` that starts and stops trials, for the whole fleet."""

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
        side = cls(*(counts.get(f"{name}:{field}", 0.0) for field in cls._fields))
        return side._replace(failures=min(side.failures, side.calls))

    @property
    def mean(self) -> float:
        return self.seconds / self.calls

    @property
    def error(self) -> float:
        """The square of the standard error of the mean."""
        spread = max(0.0, self.squares - self.seconds**2 / self.calls)
        return spread / (self.calls - 1) / self.calls


def judge(
    name: str, plan: TrialPlan, counts: Mapping[str, float], now: float, *, over: bool
) -> tuple[TrialEnded, Cost | None] | None:
    """Return how the trial of the feature *name* ends, and the cost if it measured one.

    None: the trial goes on, as it is not *over* and does no harm.
    """
    control, shed = _Side.of("control", counts), _Side.of("shed", counts)
    calls = int(control.calls + shed.calls)
    ended = partial(TrialEnded, feature=name, actor=plan.actor, reason=plan.reason, calls=calls)
    if _fails_more(shed, control):
        without = f"{shed.failures:.0f} of {shed.calls:.0f} calls without the feature failed"
        with_it = f"{control.failures:.0f} of {control.calls:.0f} with it"
        return ended(conclusion=f"stopped: {without}, {with_it}"), None
    if not over:
        return None
    if min(control.calls, shed.calls) < CALLS_MIN:
        few = f"{control.calls:.0f} calls with the feature and {shed.calls:.0f} without are too few"
        return ended(conclusion=f"{few}; {CALLS_MIN} of each are needed"), None
    difference, half = _welch(control, shed)
    low, high = difference - half, difference + half
    conclusion = f"a call takes {difference:.4g} s less ({low:.4g} to {high:.4g})"
    event = ended(conclusion=conclusion, seconds=difference, low=low, high=high)
    return event, Cost(seconds=difference, low=low, high=high, calls=calls, at=now)


def conclude_trial(
    name: str, plan: TrialPlan, cost: Cost | None, document: Document, _: float
) -> Document | None:
    """Forget the trial *plan* of a feature, and keep the *cost* that it measured."""
    trial = document.trials.get(name)
    if trial is None or trial.id != plan.id:
        return None  # somebody has begun another one
    trials = {key: one for key, one in document.trials.items() if key != name}
    costs = document.costs if cost is None else {**document.costs, name: cost}
    return document.model_copy(update={"trials": trials, "costs": costs})


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
