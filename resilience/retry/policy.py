"""When a failed job is tried again, and when it is given up."""

from dataclasses import dataclass as plain
from random import Random
from typing import Annotated, Literal, Self

from pydantic import ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass

from resilience.errors import BUGS, RejectedError, is_bug, retry_after_of

Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Exceptions = tuple[type[BaseException], ...]
Reason = Literal["dead_on", "not_in_retry_on", "bug", "exhausted", "too_old", "poison"]


@plain(frozen=True, slots=True)
class Retry:
    """Try again.

    Attributes:
        delay_seconds: How long to wait before that.
        spent: Whether the failed call counts as an attempt. A refusal does not: nothing was sent.
    """

    delay_seconds: float
    spent: bool


@plain(frozen=True, slots=True)
class Dead:
    """Give up, and leave the job to an operator.

    Attributes:
        reason: Which option of the policy says so; `bug`: the error is one of the bugs;
            `poison`: not the policy but the worker says so, as the job has killed several.
    """

    reason: Reason


Decision = Retry | Dead


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class RetryPolicy:
    """When a failed job is tried again, and when it is given up.

    The wait before call n + 1 is random between 0 and `base_seconds` · `factor`ⁿ⁻¹, at most
    `max_seconds`: "full jitter" of the AWS Architecture Blog, Exponential Backoff and Jitter. What
    the dependency said with Retry-After is waited before that, so that jobs which heard the same
    do not come back together.

    Attributes:
        max_attempts: Calls in total, at least 1; 3 means three calls.
        base_seconds: Longest wait after the first call.
        factor: How much longer it may be after each further call, at least 1.
        max_seconds: Longest it ever is, not counting Retry-After.
        give_up_after_seconds: No call begins when the job is older; None: whatever its age.
        retry_on: If given, only these exceptions, and refusals, are worth another call. Bugs
            (see docs/errors.md) are worth one only if they are named here.
        dead_on: Exceptions that end the job at once; wins over all else.

    Raises:
        pydantic.ValidationError: A value is out of range or an option is unknown.
    """

    max_attempts: Annotated[int, Field(ge=1)] = 15
    base_seconds: Seconds = 1.0
    factor: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 2.0
    max_seconds: Seconds = 3600.0
    give_up_after_seconds: Seconds | None = None
    retry_on: Exceptions = ()
    dead_on: Exceptions = ()

    @model_validator(mode="after")
    def _grows(self) -> Self:
        if self.max_seconds < self.base_seconds:
            msg = (
                f"max_seconds ({self.max_seconds:g}) is less than base_seconds "
                f"({self.base_seconds:g})"
            )
            raise ValueError(msg)
        return self

    def decide(
        self,
        error: BaseException,
        *,
        attempt: int,
        age_seconds: float,
        random: Random,
        bugs: tuple[type[Exception], ...] = BUGS,
    ) -> Decision:
        """Return what becomes of a job whose call ended in *error*.

        Args:
            error: How it ended.
            attempt: Which call it was, counted from 1. A refused one has the number of the call
                that it would have been, and so has the next.
            age_seconds: Seconds since the job was first published.
            random: Where the jitter comes from.
            bugs: Exceptions that no further call can mend.
        """
        refused = isinstance(error, RejectedError)
        if reason := self._hopeless(error, bugs, refused=refused):
            return Dead(reason)
        if attempt >= self.max_attempts and not refused:
            return Dead("exhausted")
        earliest = retry_after_of(error) or 0.0
        longest = self._longest(attempt)
        if self.give_up_after_seconds is not None:
            left = self.give_up_after_seconds - age_seconds
            if earliest >= left:
                return Dead("too_old")
            longest = min(longest, left - earliest)
        return Retry(earliest + random.uniform(0.0, longest), spent=not refused)

    def _hopeless(
        self, error: BaseException, bugs: tuple[type[Exception], ...], *, refused: bool
    ) -> Reason | None:
        if isinstance(error, self.dead_on):
            return "dead_on"
        if refused or isinstance(error, self.retry_on):
            return None
        if is_bug(error, bugs):
            return "bug"
        return "not_in_retry_on" if self.retry_on else None

    def _longest(self, attempt: int) -> float:
        try:
            return min(self.max_seconds, self.base_seconds * self.factor ** (attempt - 1))
        except OverflowError:
            return self.max_seconds
