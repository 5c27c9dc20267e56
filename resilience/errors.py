"""The tree of errors.

Every constructor takes exactly the positional arguments that end up in `args`, because Celery
sends an exception as its class and its `args` and rebuilds it from them on the other side.

None is a `TimeoutError`, not even those that say that time was up: Celery takes one that a task
ended in for its own, and `get()` then says that the result did not come.
"""

import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

E = TypeVar("E", bound=BaseException)


class ResilienceError(Exception):
    """Base of everything this library raises on purpose."""


class ConfigurationError(ResilienceError, ValueError):
    """Something was declared wrong; the message names the value and the mend."""


BUGS: tuple[type[Exception], ...] = (
    AssertionError,
    ConfigurationError,
    ImportError,
    NameError,
    NotImplementedError,
    RecursionError,
    SyntaxError,
)
"""Exceptions that no answer of a dependency can cause: the code is wrong.

They are never hidden behind a fallback. The same holds for a `TypeError` that says that a function
does not take the arguments it is called with. `Dependency(bugs=…)` and a task's `bugs` replace
this list.
"""
UNREADABLE: tuple[type[Exception], ...] = (
    ArithmeticError,
    AttributeError,
    LookupError,
    TypeError,
    ValueError,
)
"""Exceptions that an unexpected answer causes where it is read, and a bug in the reader as well.

They are failures of the dependency, so fallbacks answer. Since they may be a bug, each is also
announced as an `AnswerUnreadable` at ERROR. ValueError stands for UnicodeError,
json.JSONDecodeError and pydantic.ValidationError, too.
"""
_BUG_MARK: Final = "_resilience_bug"


class RejectedError(ResilienceError):
    """A policy refused the call before it reached the dependency.

    Nothing was sent, so a retry is always safe.

    Attributes:
        dependency: Whose policy refused.
        retry_after: Seconds until a retry makes sense; None if unknown.
    """

    def __init__(self, dependency: str, retry_after: float | None = None) -> None:
        super().__init__(dependency, retry_after)
        self.dependency = dependency
        self.retry_after = retry_after

    def __str__(self) -> str:
        when = "" if self.retry_after is None else f"; retry after {self.retry_after:g} s"
        return f"{self.dependency} was not called{when}"


class CircuitOpenError(RejectedError):
    """The breaker of this dependency is open, or half-open with all permits taken."""

    def __str__(self) -> str:
        when = "" if self.retry_after is None else f"; retry after {self.retry_after:.3g} s"
        return f"the circuit of {self.dependency} is open{when}"


class BulkheadFullError(RejectedError):
    """The bulkhead of this dependency is full: too many jobs wait for it, or run."""

    def __str__(self) -> str:
        when = "" if self.retry_after is None else f"; retry after {self.retry_after:.3g} s"
        return f"the bulkhead of {self.dependency} is full{when}"


class FeatureShedError(RejectedError):
    """A feature is shed, so what it does was not tried.

    Attributes:
        feature: Its name.
        level: How good an answer is without it, as a number.
        reason: Why it is shed.
        source: Who decided: `order`, `brownout`, `controller`, `trial` or `default`.
    """

    def __init__(
        self, feature: str, level: int, reason: str, source: str, retry_after: float | None = None
    ) -> None:
        ResilienceError.__init__(self, feature, int(level), reason, source, retry_after)
        self.feature = self.dependency = feature
        self.level = int(level)
        self.reason = reason
        self.source = source
        self.retry_after = retry_after

    def __str__(self) -> str:
        when = "" if self.retry_after is None else f"; retry after {self.retry_after:.3g} s"
        return f"the feature {self.feature} is shed by {self.source} ({self.reason}){when}"


class AlreadyRunningError(RejectedError):
    """Another job with the same idempotency key runs just now.

    Attributes:
        key: That key, with the task's name.
    """

    def __init__(self, key: str, retry_after: float | None = None) -> None:
        super().__init__(key, retry_after)
        self.key = key

    def __str__(self) -> str:
        return f"{self.key} runs already, in another job"


class TooManyAbandonedError(RejectedError):
    """So many calls that were given up still run in threads of this process that none is begun."""

    def __init__(self, calls: int, retry_after: float | None = None) -> None:
        ResilienceError.__init__(self, calls, retry_after)
        self.calls = calls
        self.dependency = "this process"
        self.retry_after = retry_after

    def __str__(self) -> str:
        return (
            f"not called: {self.calls} calls that were given up still run in threads of this "
            "process; give their clients timeouts of their own"
        )


class OrderConflictError(ResilienceError):
    """The order was refused: somebody has ordered since the version it named; says who and why."""


class BudgetExceededError(ResilienceError):
    """A budget ran out before the work was done.

    Attributes:
        what: What was cut, or was not begun.
        ran: Seconds it ran; 0 if it was not begun.
        left: Seconds of the budget that were left then, less than 0 if it was overrun.
        total: Seconds of the whole budget.
        conclusive: Whether the call had long enough to say something about who was called; a
            breaker counts it then.
    """

    def __init__(
        self,
        what: str,
        ran: float,
        left: float,
        total: float,
        conclusive: bool = False,  # noqa: FBT001, FBT002 - as it is in `args`
    ) -> None:
        super().__init__(what, ran, left, total, conclusive)
        self.what = what
        self.ran = ran
        self.left = left
        self.total = total
        self.conclusive = conclusive

    def __str__(self) -> str:
        did = f"was cut after {self.ran:.3g} s" if self.ran else "was not begun"
        if self.left > 0:
            return f"{self.what} {did}; {self.left:.3g} s of {self.total:g} s were left"
        return f"{self.what} {did}: the budget of {self.total:g} s was spent"


class AttemptTimeoutError(ResilienceError):
    """One call of a dependency took longer than its `timeout`.

    The dependency may or may not have acted on it.

    Attributes:
        dependency: Who was called.
        seconds: The timeout that ran out.
    """

    def __init__(self, dependency: str, seconds: float) -> None:
        super().__init__(dependency, seconds)
        self.dependency = dependency
        self.seconds = seconds

    def __str__(self) -> str:
        return f"{self.dependency} did not answer within {self.seconds:g} s"


class AllFallbacksFailedError(ResilienceError):
    """Neither the call nor any step of its fallback chain had an answer: level 4.

    Attributes:
        dependency: Who was called first.
        reasons: Why each step had no answer, in the order tried; the call itself is `run`.
        retry_after: Seconds until a retry makes sense; None if nobody said.
    """

    def __init__(
        self, dependency: str, reasons: Mapping[str, str], retry_after: float | None = None
    ) -> None:
        super().__init__(dependency, dict(reasons), retry_after)
        self.dependency = dependency
        self.reasons = dict(reasons)
        self.retry_after = retry_after

    def __str__(self) -> str:
        tried = "; ".join(f"{step}: {reason}" for step, reason in self.reasons.items())
        when = "" if self.retry_after is None else f" (retry after {self.retry_after:g} s)"
        return f"no answer from {self.dependency}: {tried}{when}"


class NoStoredAnswerError(ResilienceError):
    """A fallback step looked for a stored answer and there is none young enough."""


class AnswerTooOldError(ResilienceError):
    """A part of a fan-out was answered with something older than the part's `stale` allows."""


class StoreUnavailableError(ResilienceError):
    """The shared store did not answer, did not a moment ago and was skipped, or refused."""


class LedgerUnavailableError(ResilienceError):
    """The ledger's database did not answer, or refused: away, locked, full, read-only.

    What was to be kept may or may not have been: leave the job unacknowledged.
    """


class UnkeepableError(ConfigurationError):
    """The ledger can never keep this, however often it is asked; names the value and the mend."""


class SchemaError(ResilienceError):
    """The ledger's database has another schema than this version needs; says what to run."""


def is_any_of(error: BaseException, kinds: tuple[type, ...]) -> bool:
    """Tell whether *error*, or one of a group that it is, is any of *kinds*."""
    if isinstance(error, BaseExceptionGroup):
        return any(is_any_of(one, kinds) for one in error.exceptions)
    return isinstance(error, kinds)


def is_bug(error: BaseException, kinds: tuple[type[BaseException], ...] = BUGS) -> bool:
    """Tell whether *error*, or one of a group that it is, is any of *kinds* or a marked bug."""
    if isinstance(error, kinds) or hasattr(error, _BUG_MARK):
        return True
    return isinstance(error, BaseExceptionGroup) and any(
        is_bug(one, kinds) for one in error.exceptions
    )


def is_unreadable(error: BaseException) -> bool:
    """Tell whether *error*, or one of a group that it is, says that an answer was not as expected.

    An OSError that is also a ValueError, such as that of a wrong certificate, is an outage, but
    `requests` makes its JSONDecodeError one.
    """
    if isinstance(error, BaseExceptionGroup):
        return any(is_unreadable(one) for one in error.exceptions)
    if isinstance(error, OSError):
        return isinstance(error, json.JSONDecodeError)
    return isinstance(error, UNREADABLE) and not isinstance(error, ResilienceError)


def as_bug(error: E) -> E:
    """Mark *error* as a bug whatever its class, and return it."""
    setattr(error, _BUG_MARK, True)
    return error


def mark_wrong_call(
    error: BaseException,
    function: Callable[..., Any],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
) -> None:
    """Mark *error* as a bug if it says that *function* does not take these arguments.

    Such a call never reached the body of the function, so no answer can have caused the error. Any
    other `TypeError` comes from the body, where `None["name"]` is one, too.
    """
    if isinstance(error, TypeError):
        try:
            inspect.signature(function).bind(*args, **kwargs)
        except TypeError:
            as_bug(error)
        except ValueError:  # a built-in function that has no signature
            return


def retry_after_of(error: BaseException) -> float | None:
    """Return the seconds after which *error* says to come back, if it does.

    Reads a `retry_after` attribute (this library's refusals) or the Retry-After header, in seconds,
    of a `response` attribute (httpx, requests). Anything unusable counts as not said.
    """
    try:
        said = getattr(error, "retry_after", None)
        if said is None:
            said = error.response.headers["Retry-After"]  # type: ignore[attr-defined]
        seconds = float(said)
    except Exception:  # noqa: BLE001 - a stranger's attributes may be properties that raise
        return None
    return seconds if 0 <= seconds < float("inf") else None


def text_of(error: BaseException) -> str:
    """Return `str(error)`, or a note that it raised: a broken text must not hide its error."""
    try:
        return str(error)
    except Exception as also:  # noqa: BLE001 - whatever a stranger's __str__ does
        return f"(its text raised {type(also).__name__})"


def place_of(error: BaseException) -> str:
    """Return file, line and function in which *error* was raised; empty if it was not."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return ""
    code = trace.tb_frame.f_code
    return f"{code.co_filename}:{trace.tb_lineno} in {code.co_qualname}"
