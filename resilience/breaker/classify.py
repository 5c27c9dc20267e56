"""What the end of a call says about the dependency."""

import asyncio
from typing import Literal

from resilience.breaker.policy import BreakerPolicy
from resilience.errors import BUGS, RejectedError

Kind = Literal["ok", "failed", "neutral"]
OK: Kind = "ok"
FAILED: Kind = "failed"
NEUTRAL: Kind = "neutral"


class Classifier:
    """Sorts exceptions into failures, answers, and what says nothing about the dependency.

    Neutral are, always: whatever is no `Exception` (cancellation, shutdown), refusals of any
    policy, bugs unless `count` names them, and what `ignore` or the caller names.
    """

    __slots__ = ("_count", "_failure_if", "_neutral")

    def __init__(self, policy: BreakerPolicy, neutral: tuple[type[BaseException], ...]) -> None:
        self._neutral = (*neutral, *policy.ignore, RejectedError, asyncio.CancelledError)
        self._count = policy.count
        self._failure_if = policy.failure_if

    def kind(self, error: BaseException) -> Kind:
        """Return what *error* says; a `failure_if` that raises counts as a failure."""
        if not isinstance(error, Exception) or isinstance(error, self._neutral):
            return NEUTRAL
        if self._count:
            return FAILED if isinstance(error, self._count) else self._other(error)
        if isinstance(error, BUGS):
            return NEUTRAL
        if self._failure_if is None:
            return FAILED
        return FAILED if self._failure_if(error) else OK

    def _other(self, error: Exception) -> Kind:
        return NEUTRAL if isinstance(error, BUGS) else OK
