"""What holds for every retry policy, whatever its options."""

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from resilience.errors import RejectedError
from resilience.retry import Dead, Retry, RetryPolicy


class BusyError(Exception):
    """The dependency answered with Retry-After, or without."""

    def __init__(self, retry_after: float | None) -> None:
        """Keep its Retry-After in seconds, if there is one."""
        super().__init__(retry_after)
        self.retry_after = retry_after


seconds = st.floats(min_value=1e-3, max_value=1e6)
retry_afters = st.none() | st.floats(min_value=0, max_value=1e6)
errors = retry_afters.map(BusyError) | retry_afters.map(lambda wait: RejectedError("mail", wait))
randoms = st.randoms(use_true_random=False)


@st.composite
def policies(draw: st.DrawFn) -> RetryPolicy:
    """Return any policy."""
    base = draw(seconds)
    return RetryPolicy(
        max_attempts=draw(st.integers(1, 10_000)),
        base_seconds=base,
        factor=draw(st.floats(min_value=1, max_value=1e6)),
        max_seconds=base + draw(seconds),
        give_up_after_seconds=draw(st.none() | seconds),
    )


@given(policies(), errors, st.integers(1, 10_000), st.floats(0, 1e6), randoms)
def test_wait_is_never_early_never_too_long_and_never_past_the_end(
    policy: RetryPolicy,
    error: BusyError | RejectedError,
    attempt: int,
    age: float,
    random: Random,
) -> None:
    """It is at least Retry-After, at most `max_seconds` more, and no job gets too old."""
    decision = policy.decide(error, attempt=attempt, age_seconds=age, random=random)

    if isinstance(decision, Retry):
        earliest = error.retry_after or 0.0
        assert earliest <= decision.delay_seconds <= earliest + policy.max_seconds * (1 + 1e-9)
        if policy.give_up_after_seconds is not None:
            assert age + decision.delay_seconds <= policy.give_up_after_seconds * (1 + 1e-9)
    else:
        assert policy.give_up_after_seconds is not None or attempt >= policy.max_attempts


@given(st.integers(1, 30), randoms)
def test_failing_job_is_called_exactly_as_often_as_allowed(most: int, random: Random) -> None:
    """`max_attempts` counts calls, not retries."""
    policy = RetryPolicy(max_attempts=most)
    calls = 1
    while isinstance(
        policy.decide(OSError(), attempt=calls, age_seconds=0.0, random=random), Retry
    ):
        calls += 1

    assert calls == most


@given(policies(), st.integers(1, 10_000), st.floats(0, 1e6), randoms)
def test_refusal_never_spends_an_attempt(
    policy: RetryPolicy, attempt: int, age: float, random: Random
) -> None:
    """However many refusals a job meets, only its age can end it, if the policy gives up at all."""
    error = RejectedError("mail")
    decision = policy.decide(error, attempt=attempt, age_seconds=age, random=random)

    if isinstance(decision, Retry):
        assert not decision.spent
    else:
        assert decision == Dead("too_old")
        assert policy.give_up_after_seconds is not None


@given(st.integers(1, 12), randoms)
def test_wait_is_never_longer_than_the_factor_allows(attempt: int, random: Random) -> None:
    """Before call n + 1 it is at most base · factorⁿ⁻¹."""
    policy = RetryPolicy(base_seconds=0.5, factor=3.0)
    decision = policy.decide(OSError(), attempt=attempt, age_seconds=0.0, random=random)

    assert isinstance(decision, Retry)
    assert 0.0 <= decision.delay_seconds <= 0.5 * 3.0 ** (attempt - 1)
