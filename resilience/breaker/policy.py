"""When a circuit opens, and how it closes again."""

from collections.abc import Callable
from typing import Annotated, Any, Self

from pydantic import ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass

Ratio = Annotated[float, Field(gt=0, le=1)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
OpenSeconds = Annotated[float, Field(gt=0, le=86_400)]
Exceptions = tuple[type[BaseException], ...]


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class BreakerPolicy:
    """When a circuit opens, and how it closes again; every figure is over the whole fleet.

    Attributes:
        failure_ratio: Share of failures, in (0, 1], at which the circuit opens; None: never.
        slow_seconds: A call that takes longer is slow; None: no call is.
        slow_ratio: Share of slow calls, in (0, 1], at which the circuit opens.
        minimum_calls: Calls the window must hold before a ratio counts, at least 1.
        window_seconds: Length of the window, 1 to 300.
        consecutive_failures: Failures in a row that open the circuit whatever the window holds: a
            window full of good calls takes half its length to turn. None: never.
        min_reporters: Processes that must have seen failures or slow calls within the window, at
            least 1. With more than 1, a host with a broken resolver opens the circuit of nobody
            else. A process that has no store needs nobody else.
        open_seconds: How long an opened circuit refuses before it probes, up to a day.
        open_seconds_max: Longest such time; it doubles with each failed round of probes, and is
            shortened by up to a fifth at random.
        half_open_probes: Calls let through to decide whether to close, at least 1. One verdict is
            given on all of them.
        probe_seconds: How long a probe may take before another may take its place.
        ignore: Exceptions that say nothing about the dependency.
        count: If given, only these exceptions and `AttemptTimeoutError` are failures; others mean
            that it answered.
        failure_if: If given, only exceptions for which it returns true are failures. One that
            raises is logged, and counts as true.
        failure_if_result: If given, a value for which it returns true is a failure; as above.

    Raises:
        pydantic.ValidationError: A value is out of range, an option is unknown, or no condition is
            left under which the circuit could open.
    """

    failure_ratio: Ratio | None = 0.5
    slow_seconds: Seconds | None = None
    slow_ratio: Ratio = 0.8
    minimum_calls: Annotated[int, Field(ge=1)] = 20
    window_seconds: Annotated[int, Field(ge=1, le=300)] = 10
    consecutive_failures: Annotated[int, Field(ge=1)] | None = 20
    min_reporters: Annotated[int, Field(ge=1)] = 1
    open_seconds: OpenSeconds = 1.0
    open_seconds_max: OpenSeconds = 3.0
    half_open_probes: Annotated[int, Field(ge=1, le=1000)] = 5
    probe_seconds: Seconds = 10.0
    ignore: Exceptions = ()
    count: Exceptions = ()
    failure_if: Callable[[BaseException], bool] | None = None
    failure_if_result: Callable[[Any], bool] | None = None

    @model_validator(mode="after")
    def _can_trip(self) -> Self:
        if (self.failure_ratio, self.slow_seconds, self.consecutive_failures) == (None, None, None):
            msg = (
                "this breaker can never trip: set failure_ratio, slow_seconds or "
                "consecutive_failures"
            )
            raise ValueError(msg)
        if self.open_seconds_max < self.open_seconds:
            msg = (
                f"open_seconds_max ({self.open_seconds_max:g}) is less than "
                f"open_seconds ({self.open_seconds:g})"
            )
            raise ValueError(msg)
        return self
