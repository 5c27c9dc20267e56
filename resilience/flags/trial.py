"""What a feature costs, measured on a share of its calls against an equal control."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum

from resilience.flags.document import TrialPlan


class Arm(Enum):
    """Which side of a trial a call is on."""

    NEITHER = "neither"
    """The call counts for nothing; the feature is on."""
    CONTROL = "control"
    """The feature is on, and the call is measured."""
    SHED = "shed"
    """The feature is shed for this call, which is measured."""


class Trial:
    """One trial in one process."""

    def __init__(self, feature: str, plan: TrialPlan, dice: random.Random | None = None) -> None:
        """Follow *plan* for *feature*."""
        self.feature = feature
        self.plan = plan
        self._dice = dice or random.Random()  # noqa: S311 - statistics, no secrets

    @contextmanager
    def measured(self, arm: Arm) -> Iterator[None]:  # noqa: ARG002 - not counted yet
        """Count what happens inside as one call on the side of *arm*."""
        yield

    def draw(self) -> Arm:
        """Return the side of one more call."""
        drawn = self._dice.random()
        if drawn < self.plan.share:
            return Arm.SHED
        return Arm.CONTROL if drawn < 2 * self.plan.share else Arm.NEITHER
