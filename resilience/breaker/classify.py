"""What the end of a call says about the dependency."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Literal

from resilience.breaker.policy import BreakerPolicy
from resilience.errors import BUGS, BudgetExceededError, RejectedError

logger = logging.getLogger("resilience")

Kind = Literal["ok", "failed", "neutral"]
OK: Kind = "ok"
FAILED: Kind = "failed"
NEUTRAL: Kind = "neutral"


class Classifier:
    """Sorts exceptions into failures, answers, and what says nothing about the dependency.

    Neutral are, always: whatever is no `Exception` (cancellation, shutdown), refusals of any
    policy, bugs unless `count` names them, calls that a budget cut before they could say anything,
    and what `ignore` or the caller names.
    """

    __slots__ = ("_count", "_failure_if", "_failure_if_result", "_neutral")

    def __init__(self, policy: BreakerPolicy, neutral: tuple[type[BaseException], ...]) -> None:
        self._neutral = (*neutral, *policy.ignore, RejectedError, asyncio.CancelledError)
        self._count = policy.count
        self._failure_if = policy.failure_if
        self._failure_if_result = policy.failure_if_result

    def kind(self, error: BaseException) -> Kind:
        """Return what *error* says; a `failure_if` that raises counts as a failure."""
        if not isinstance(error, Exception) or isinstance(error, self._neutral):
            return NEUTRAL
        if isinstance(error, BudgetExceededError) and not error.conclusive:
            return NEUTRAL
        named = isinstance(error, self._count)
        if isinstance(error, BUGS) and not named:
            return NEUTRAL
        if self._count and not named:
            return OK
        return FAILED if self._failure_if is None or _says(self._failure_if, error) else OK

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
