"""Where a wait ends, what it costs, and which errors no other call can mend."""

from random import Random

import pytest

from resilience import RetryPolicy
from resilience.errors import CircuitOpenError
from resilience.retry import Dead, Retry


class Most(Random):
    """Dice that always show the most."""

    def uniform(self, a: float, b: float) -> float:
        """Return the longest wait."""
        assert a == 0.0
        return b


class BusyError(Exception):
    """An answer that says when to come back."""

    retry_after = 30.0


@pytest.mark.parametrize(
    ("age", "expected"),
    [
        pytest.param(0.0, 30.0 + 40.0, id="retry-after-and-then-the-jitter"),
        pytest.param(50.0, 30.0 + 20.0, id="up-to-the-end"),
        pytest.param(69.9, 30.0 + 0.1, id="hardly"),
        pytest.param(70.0, None, id="too-old"),
    ],
)
def test_no_wait_goes_on_beyond_the_end(age: float, expected: float | None) -> None:
    """A job that is 100 s old is given up, however long the dependency wants to be left alone."""
    policy = RetryPolicy(base_seconds=40.0, max_seconds=40.0, give_up_after_seconds=100.0)

    decision = policy.decide(BusyError(), attempt=1, age_seconds=age, random=Most())

    if expected is None:
        assert decision == Dead("too_old")
    else:
        assert isinstance(decision, Retry)
        assert decision.delay_seconds == pytest.approx(expected)


def test_failure_spends_an_attempt_and_a_refusal_none() -> None:
    """Nothing was sent when a call was refused."""
    policy, dice = RetryPolicy(), Most()

    failed = policy.decide(OSError(), attempt=1, age_seconds=0.0, random=dice)
    refused = policy.decide(CircuitOpenError("mail", 1.0), attempt=1, age_seconds=0.0, random=dice)

    assert isinstance(failed, Retry)
    assert failed.spent is True
    assert isinstance(refused, Retry)
    assert refused.spent is False


def test_bugs_are_those_that_the_caller_names() -> None:
    """A task has a list of its own."""

    def decide(error: Exception) -> object:
        return RetryPolicy().decide(
            error, attempt=1, age_seconds=0.0, random=Most(), bugs=(BusyError,)
        )

    assert decide(BusyError()) == Dead("bug")
    assert isinstance(decide(NameError()), Retry)
