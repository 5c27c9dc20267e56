"""The tree of errors.

Every constructor takes exactly the positional arguments that end up in `args`, because Celery
sends an exception as its class and its `args` and rebuilds it from them on the other side.
"""

from collections.abc import Mapping


class ResilienceError(Exception):
    """Base of everything this library raises on purpose."""


class ConfigurationError(ResilienceError, ValueError):
    """Something was declared wrong; the message names the value and the mend."""


BUGS: tuple[type[Exception], ...] = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ConfigurationError,
    ImportError,
    LookupError,
    NameError,
    NotImplementedError,
    RecursionError,
    SyntaxError,
    TypeError,
)
"""Exceptions that mean the code is wrong: never hidden behind a fallback."""


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


class AttemptTimeoutError(ResilienceError, TimeoutError):
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


class StoreUnavailableError(ResilienceError):
    """The shared store did not answer, did not a moment ago and was skipped, or refused."""


class LedgerUnavailableError(ResilienceError):
    """The ledger's database did not answer, or refused: away, locked, full, read-only.

    What was to be kept may or may not have been: leave the job unacknowledged.
    """


class SchemaError(ResilienceError):
    """The ledger's database has another schema than this version needs; says what to run."""


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
