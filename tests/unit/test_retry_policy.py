"""Which failures are worth another call, and which policies there are."""

from random import Random
from typing import Any

import pytest
from pydantic import ValidationError

from resilience.errors import (
    BUGS,
    AttemptTimeoutError,
    BulkheadFullError,
    CircuitOpenError,
    RejectedError,
    as_bug,
)
from resilience.retry import Dead, Retry, RetryPolicy


def decide(
    policy: RetryPolicy, error: BaseException, *, attempt: int = 1, age: float = 0.0
) -> Retry | Dead:
    """Return what *policy* decides."""
    random = Random(1)  # noqa: S311 - jitter is no secret
    return policy.decide(error, attempt=attempt, age_seconds=age, random=random)


def wait(policy: RetryPolicy, attempt: int, random: Random) -> float:
    """Return how long *policy* waits after call number *attempt*, in seconds."""
    decision = policy.decide(OSError(), attempt=attempt, age_seconds=0.0, random=random)
    assert isinstance(decision, Retry)
    return decision.delay_seconds


@pytest.mark.parametrize(
    ("options", "error", "reason"),
    [
        ({}, ConnectionError(), None),
        ({}, ValueError(), None),
        ({}, AttemptTimeoutError("mail", 1.0), None),
        ({}, NameError(), "bug"),
        ({}, KeyError(), None),
        ({}, TypeError(), None),
        ({}, as_bug(TypeError()), "bug"),
        ({"retry_on": (NameError,)}, NameError(), None),
        ({"retry_on": (OSError,)}, NameError(), "bug"),
        ({"retry_on": (OSError,)}, ConnectionError(), None),
        ({"retry_on": (OSError,)}, ValueError(), "not_in_retry_on"),
        ({"retry_on": (OSError,)}, CircuitOpenError("mail"), None),
        ({"dead_on": (ConnectionError,)}, ConnectionError(), "dead_on"),
        ({"dead_on": (ConnectionError,), "retry_on": (OSError,)}, ConnectionError(), "dead_on"),
        ({"dead_on": (ConnectionError,), "retry_on": (OSError,)}, OSError(), None),
        ({"dead_on": (TypeError,)}, TypeError(), "dead_on"),
        ({"dead_on": (RejectedError,)}, CircuitOpenError("mail"), "dead_on"),
        ({"max_attempts": 1}, OSError(), "exhausted"),
        ({"max_attempts": 1}, CircuitOpenError("mail"), None),
        ({"max_attempts": 1}, BulkheadFullError("mail", 5.0), None),
        ({"give_up_after_seconds": 5.0}, CircuitOpenError("mail", 4.9), None),
        ({"give_up_after_seconds": 5.0}, CircuitOpenError("mail", 5.0), "too_old"),
    ],
)
def test_failure_is_sorted(
    options: dict[str, Any], error: BaseException, reason: str | None
) -> None:
    """Every option is heeded, alone and with the others; `dead_on` wins."""
    decision = decide(RetryPolicy(**options), error)

    assert (decision.reason if isinstance(decision, Dead) else None) == reason


@pytest.mark.parametrize("bug", BUGS)
def test_bug_dies_at_once(bug: type[Exception]) -> None:
    """Calling again does not mend the code."""
    assert decide(RetryPolicy(), bug.__new__(bug)) == Dead("bug")


@pytest.mark.parametrize(
    ("attempt", "expected"),
    [pytest.param(2, Retry, id="second-of-three"), pytest.param(3, Dead, id="third-of-three")],
)
def test_attempts_are_calls(attempt: int, expected: type) -> None:
    """Three attempts are three calls, not one call and three retries."""
    assert isinstance(decide(RetryPolicy(max_attempts=3), OSError(), attempt=attempt), expected)


@pytest.mark.parametrize(
    ("age", "expected"),
    [pytest.param(59.0, Retry, id="young"), pytest.param(60.0, Dead, id="old")],
)
def test_old_job_is_given_up(age: float, expected: type) -> None:
    """No call begins once the job is as old as `give_up_after_seconds`."""
    policy = RetryPolicy(give_up_after_seconds=60.0)

    assert isinstance(decide(policy, OSError(), age=age), expected)


@pytest.mark.parametrize(
    ("options", "longest"),
    [
        ({}, [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 3600, 3600]),
        ({"base_seconds": 0.5, "factor": 3.0, "max_seconds": 10.0}, [0.5, 1.5, 4.5, 10, 10]),
        ({"base_seconds": 2.0, "factor": 1.0}, [2, 2, 2]),
    ],
)
def test_waits_grow_by_the_factor_and_are_spread_from_zero_to_the_longest(
    options: dict[str, Any], longest: list[float]
) -> None:
    """Full jitter: half of the longest wait on average, and jobs that failed together part."""
    policy, random = RetryPolicy(**options), Random(1)  # noqa: S311 - jitter is no secret

    for attempt, most in enumerate(longest, 1):
        waits = [wait(policy, attempt, random) / most for _ in range(500)]
        assert min(waits) == pytest.approx(0.0, abs=0.05)
        assert sum(waits) / 500 == pytest.approx(0.5, abs=0.05)
        assert max(waits) == pytest.approx(1.0, abs=0.05)


def test_growth_has_no_end_that_could_overflow() -> None:
    """A job with a huge number of attempts waits `max_seconds` at most, as before."""
    policy = RetryPolicy(max_attempts=2_000_000, max_seconds=7.0)
    decision = decide(policy, OSError(), attempt=1_000_000)

    assert isinstance(decision, Retry)
    assert decision.delay_seconds <= 7.0


@pytest.mark.parametrize(
    "options",
    [
        {"max_attempts": 0},
        {"base_seconds": 0},
        {"base_seconds": float("nan")},
        {"factor": 0.9},
        {"factor": float("inf")},
        {"max_seconds": 0.5},
        {"max_seconds": float("inf")},
        {"give_up_after_seconds": 0},
        {"retry_on": ("OSError",)},
        {"dead_on": (1,)},
        {"attempts": 3},
    ],
    ids=repr,
)
def test_policy_refuses_what_makes_no_sense(options: dict[str, Any]) -> None:
    """A bound that is crossed or a name that is unknown is an error where it is written."""
    with pytest.raises(ValidationError) as caught:
        RetryPolicy(**options)

    assert next(iter(options)) in str(caught.value)
