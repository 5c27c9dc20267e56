"""What became of answers."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from resilience.events.base import Event
from resilience.levels import Level


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerDegraded(Event, severity=logging.WARNING):
    """A fallback step answered instead of the dependency.

    Attributes:
        call: The task or function that was called.
        dependency: Who should have answered; empty: a call of a budget, which names none.
        level: How good the answer is.
        reason: Class name of the error that the first choice ended in.
        error: That error's text.
        source: Which step answered.
        age: Seconds since the answer was fresh, if it has an age.
        feature: Which feature is shed, if that is the reason.
    """

    call: str
    dependency: str
    level: Level
    reason: str
    error: str
    source: str
    age: float | None
    feature: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DegradedValuePassed(Event):
    """A task was given the value of a degraded answer; the level travels in a message header.

    Attributes:
        task: Name of the task that is given it.
        id: That job's id.
        dependency: Who should have answered.
        level: How good the answer is.
        reason: Class name of the error that the first choice ended in.
        source: Which step answered.
        age: Seconds since the answer was fresh, if it has an age.
    """

    task: str
    id: str
    dependency: str | None
    level: Level
    reason: str | None
    source: str | None
    age: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerUnreadable(Event, severity=logging.ERROR, crowds=True):
    """A call ended in an error of reading an answer: it was unexpected, or the code has a bug.

    It counts as a failure of the dependency, but somebody should look at it.

    Attributes:
        call: The task or function that was called.
        dependency: Who answered.
        source: Which step of the fallback chain; None: the call itself.
        reason: Class name of the error.
        error: Its text.
        place: File, line and function in which it was raised.
    """

    call: str
    dependency: str
    source: str | None
    reason: str
    error: str
    place: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FallbacksExhausted(Event, severity=logging.ERROR):
    """A call ended at level 4: no step of its chain had an answer."""

    call: str
    dependency: str
    reasons: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class FallbackDrilled(Event):
    """A drill found a fallback chain in order: it would have answered.

    Attributes:
        call: The task or function that was called.
        dependency: Who answered it; a drill follows a full answer.
        level: How good the answer of the chain would have been.
        source: Which step would have answered.
        age: Seconds since that answer was fresh, if it has an age.
        seconds: How long the chain took.
        reasons: Why the steps before had none, by step.
    """

    call: str
    dependency: str
    level: Level
    source: str
    age: float | None
    seconds: float
    reasons: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class FallbackDrillFailed(Event, severity=logging.WARNING):
    """A drill found a fallback chain that would not have answered.

    Attributes:
        call: The task or function that was called.
        dependency: Who answered it; a drill follows a full answer.
        seconds: How long the chain took.
        reasons: Why each step had no answer.
    """

    call: str
    dependency: str
    seconds: float
    reasons: Mapping[str, str]


FAN_OUT_ENDS: Final = ("complete", "required", "deadline", "unpublished", "lost")


@dataclass(frozen=True, slots=True, kw_only=True)
class FanOutFinished(Event):
    """A fan-out was finalised. Announced once, by the process that finalised it.

    Also by a caller that got no answer from the store and returned without it: a worker may
    finalise the same fan-out once the store is back.

    Attributes:
        id: The fan-out's own id.
        ended: Why, one of `FAN_OUT_ENDS`: `complete`, `required` (a required part failed),
            `deadline`, `unpublished`, or `lost` (the store did not answer the caller).
        level: Level of the response.
        missing: Parts without an answer.
        degraded: Parts with a degraded answer.
    """

    id: str
    ended: str
    level: Level
    missing: tuple[str, ...]
    degraded: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PartLate(Event, severity=logging.WARNING):
    """A part's answer came after its fan-out was finalised, so it was dropped."""

    id: str
    part: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PartUnreported(Event, severity=logging.ERROR):
    """A part ended but could not tell its fan-out, which will call it missing."""

    id: str
    part: str
    error: str
