"""What the end of a call says about the dependency."""

import asyncio
from collections.abc import Callable
from typing import Any, Literal

from resilience.breaker.policy import BreakerPolicy
from resilience.errors import (
    BUGS,
    AttemptTimeoutError,
    BudgetExceededError,
    RejectedError,
    is_bug,
)
from resilience.text import get_logger

logger = get_logger("resilience")

Kind = Literal["ok", "failed", "neutral"]
OK: Kind = "ok"
FAILED: Kind = "failed"
NEUTRAL: Kind = "neutral"
ENDS = (asyncio.CancelledError, GeneratorExit, KeyboardInterrupt, SystemExit)
"""What ends a call from outside."""


class Classifier:
    """Sorts exceptions into failures, answers, and what says nothing about the dependency.

    Neutral are, always: cancellation and shutdown, refusals of any policy, calls that a budget cut
    before they could say anything, and what `ignore` or the caller names; unless `count` names
    them, bugs and whatever else is no `Exception`.

    A group is a failure if one of its exceptions is; if none is, neutral if one of them is.
    """

    __slots__ = ("_bugs", "_count", "_failure_if", "_failure_if_result", "_neutral")

    def __init__(
        self,
        policy: BreakerPolicy,
        neutral: tuple[type[BaseException], ...],
        bugs: tuple[type[BaseException], ...] = BUGS,
    ) -> None:
        self._bugs = bugs
        self._neutral = (*neutral, *policy.ignore, RejectedError, *ENDS)
        # Who was cut has not answered, whatever may be named besides.
        self._count = policy.count and (*policy.count, AttemptTimeoutError, BudgetExceededError)
        self._failure_if = policy.failure_if
        self._failure_if_result = policy.failure_if_result

    def kind(self, error: BaseException) -> Kind:
        """Return what *error* says; a `failure_if` that raises counts as a failure."""
        if self.ignores(error):
            return NEUTRAL
        if isinstance(error, BudgetExceededError) and not error.conclusive:
            return NEUTRAL
        named = isinstance(error, self._count)
        if isinstance(error, ExceptionGroup) and not named:
            kinds = {self.kind(one) for one in error.exceptions}
            return next(kind for kind in (FAILED, NEUTRAL, OK) if kind in kinds)
        if not named and (not isinstance(error, Exception) or is_bug(error, self._bugs)):
            return NEUTRAL
        if self._count and not named:
            return OK
        return FAILED if self._failure_if is None or _says(self._failure_if, error) else OK

    def ignores(self, error: BaseException) -> bool:
        """Tell whether *error* says nothing, whatever `count` and `failure_if` say."""
        return isinstance(error, self._neutral)

    def kind_of_result(self, value: object) -> Kind:
        """Return what *value* says; a `failure_if_result` that raises counts as a failure."""
        judge = self._failure_if_result
        return FAILED if judge is not None and _says(judge, value) else OK


def _says(judge: Callable[[Any], bool], what: object) -> bool:
    try:
        return bool(judge(what))
    except Exception:
        logger.exception("%r could not judge a %s", judge, type(what).__name__)
        return True
