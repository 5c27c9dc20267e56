"""What a feature costs, measured on a share of its calls against an equal control."""

from random import Random, SystemRandom
from typing import Literal, Self, TypeVar

from resilience.flags.document import TrialPlan

T = TypeVar("T")
_random = SystemRandom()  # forked children must not draw alike


class Sample:
    """One call that is measured: a context manager around it.

    Attributes:
        shed: Whether the feature is shed for this call; otherwise the call is part of the control.
    """

    __slots__ = ("shed",)

    def __init__(self, *, shed: bool) -> None:
        """Measure a call."""
        self.shed = shed

    def judge(self, value: T) -> T:
        """Return *value*, which the call returned."""
        return value

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        return None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, _: object, error: BaseException | None, __: object) -> None:
        return None


Drawn = Literal[True] | Sample


class Trial:
    """One trial in one process."""

    def __init__(self, plan: TrialPlan, dice: Random = _random) -> None:
        """Follow *plan*."""
        self.plan = plan
        self._dice = dice

    def draw(self) -> Drawn:
        """Return how to measure one more call; True: not at all, and the feature is on."""
        drawn = self._dice.random()
        return Sample(shed=drawn < self.plan.share) if drawn < 2 * self.plan.share else True
