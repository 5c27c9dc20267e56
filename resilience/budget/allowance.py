"""How long one call of a dependency may take: its own timeout, or what the budget leaves."""

import functools
from collections.abc import Callable

from resilience.budget.budget import CONCLUSIVE_SHARE, TimeoutBudget, current_budget
from resilience.budget.clients import lacked_time
from resilience.errors import AttemptTimeoutError, BudgetExceededError

RESERVE_SHARE = 0.05
"""A call under a budget leaves so much of what remains to what comes after it: the breaker that
counts it, the fallback chain, the answer's way back."""
RESERVE_SECONDS_MAX = 0.05

Limit = tuple[float, Callable[[], BaseException]]
"""Seconds, and what makes the error of a call that takes longer."""


class Allowance:
    """Says how long calls of one dependency may take.

    Attributes:
        own: The limit of a call that no budget limits; None: there is none.
    """

    __slots__ = ("_dependency", "_name", "_timeout", "own")

    def __init__(self, name: str, dependency: str, timeout: float | None) -> None:
        """Limit calls of *dependency* to *timeout* seconds.

        Args:
            name: What is called, for errors.
            dependency: Who is called.
            timeout: As of the dependency; None: only a budget limits it.
        """
        self._name = name
        self._dependency = dependency
        self._timeout = timeout
        self.own: Limit | None = None
        if timeout is not None:
            self.own = timeout, functools.partial(AttemptTimeoutError, dependency, timeout)

    def within(self, budget: TimeoutBudget) -> Limit:
        """Return the limit of a call under *budget*.

        Raises:
            BudgetExceededError: Nothing is left.
        """
        seconds = _usable(budget, self._name)
        own = self.own
        if own is not None and own[0] <= seconds:
            return own
        if seconds < self._conclusive_seconds(budget):
            return seconds, lambda: BudgetExceededError(
                self._name, seconds, budget.remaining(), budget.total
            )
        return seconds, functools.partial(AttemptTimeoutError, self._dependency, seconds)

    def of_step(self, source: str) -> Limit | None:
        """Return the limit of the fallback step called *source*, under the current budget.

        Raises:
            BudgetExceededError: Nothing is left.
        """
        budget, seconds = current_budget(), self._timeout
        if budget is not None:
            usable = _usable(budget, source)
            seconds = usable if seconds is None else min(seconds, usable)
        if seconds is None:
            return None
        return seconds, functools.partial(AttemptTimeoutError, source, seconds)

    def excuse(self, error: Exception, budget: TimeoutBudget | None, limit: Limit) -> None:
        """Let a client that gave up because the budget ends count no more than a cut would.

        Raises:
            BudgetExceededError: It had too little time to say something about the dependency.
        """
        if budget is None:
            return
        seconds, cut = limit
        if seconds < self._conclusive_seconds(budget) and lacked_time(error, budget, seconds):
            raise cut() from error

    def _conclusive_seconds(self, budget: TimeoutBudget) -> float:
        return CONCLUSIVE_SHARE * (budget.total if self._timeout is None else self._timeout)


def _usable(budget: TimeoutBudget, what: str) -> float:
    """Return what is left of *budget*, less the reserve.

    Raises:
        BudgetExceededError: Nothing is left.
    """
    left = budget.remaining()
    if left <= 0:
        raise BudgetExceededError(what, 0.0, left, budget.total)
    return left - min(RESERVE_SHARE * left, RESERVE_SECONDS_MAX)
