"""Announces the calls of a pipeline that did not end in a full answer."""

from collections.abc import Iterable
from typing import Any

from resilience.errors import (
    AllFallbacksFailedError,
    FeatureShedError,
    is_unreadable,
    place_of,
    text_of,
)
from resilience.events import (
    AnswerDegraded,
    AnswerUnreadable,
    FallbacksExhausted,
    Listener,
    announce,
)
from resilience.fallback.progress import reason_of
from resilience.levels import Level
from resilience.outcome import Outcome


class Reports:
    """Reports of the calls of one pipeline."""

    def __init__(self, name: str, dependency: str, listeners: Iterable[Listener]) -> None:
        """Report calls of *dependency*, which are called *name*, to *listeners*."""
        self._name = name
        self._dependency = dependency
        self._listeners = listeners

    def why(self, error: Exception, source: str | None = None) -> str:
        """Return what *error* says, and announce it if a bug may hide behind it.

        Args:
            error: What the call, or a step of its chain, ended in.
            source: Which step; None: the call itself.
        """
        if is_unreadable(error):
            event = AnswerUnreadable(
                call=self._name,
                dependency=self._dependency,
                source=source,
                reason=type(error).__name__,
                error=text_of(error),
                place=place_of(error),
            )
            announce(event, self._listeners)
        return reason_of(error)

    def degraded(self, answer: Outcome[Any], error: Exception) -> Outcome[Any]:
        """Return the *answer* of a fallback step to a call that ended in *error*; announce it."""
        reason, level = type(error).__name__, answer.level
        if isinstance(error, FeatureShedError):
            level = max(level, Level(error.level))
        event = AnswerDegraded(
            call=self._name,
            dependency=self._dependency,
            level=level,
            reason=reason,
            error=text_of(error),
            source=str(answer.source),
            age=answer.age,
            feature=error.feature if isinstance(error, FeatureShedError) else None,
        )
        announce(event, self._listeners)
        return Outcome(
            value=answer.value,
            level=level,
            reason=reason,
            source=answer.source,
            age=answer.age,
            dependency=self._dependency,
        )

    def exhausted(
        self, reasons: dict[str, str], retry_after: float | None
    ) -> AllFallbacksFailedError:
        """Return the error of a call for which no step had an answer; announce it."""
        event = FallbacksExhausted(call=self._name, dependency=self._dependency, reasons=reasons)
        announce(event, self._listeners)
        return AllFallbacksFailedError(self._dependency, reasons, retry_after)
