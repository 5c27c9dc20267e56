"""Budgets written down wrong: refused where they are written, with the value in the message."""

import re
from typing import Any

import pytest

from resilience import ConfigurationError, TimeoutBudget, current_budget
from tests.unit.budgets import Run

SECONDS_MAX = 31622400.0

NO_TIMES = [0, 0.0, -1, float("nan"), float("inf"), float("-inf"), True, "5", [], 10**400]
NO_SHARES = [0, -0.1, 1.1, float("nan"), float("inf"), True, "0.5", [], 10**400]


def fetch() -> None:
    """Fail the test: a mistaken call is not made."""
    pytest.fail("was called")


def said(value: object) -> str:
    """Return a pattern for *value* in a message."""
    return re.escape(repr(value))


@pytest.mark.parametrize("total", [*NO_TIMES, None, SECONDS_MAX + 1], ids=lambda v: repr(v)[:8])
def test_budget_of_no_time_is_refused(total: Any) -> None:  # noqa: ANN401 - anything
    """A budget is a number of seconds, more than 0 and at most a year."""
    with pytest.raises(ConfigurationError, match=f"^TimeoutBudget: .*{said(total)}$"):
        TimeoutBudget(total)


def test_budget_may_be_as_long_as_a_year() -> None:
    """A leap year, to the second."""
    assert TimeoutBudget(SECONDS_MAX).total == SECONDS_MAX


@pytest.mark.parametrize("seconds", NO_TIMES, ids=lambda v: repr(v)[:8])
def test_call_with_no_time_is_refused(spend: Run, seconds: Any) -> None:  # noqa: ANN401 - anything
    """Seconds of a call are such a number; the error names the function; no default hides it."""
    with pytest.raises(ConfigurationError, match=f"^fetch: .*{said(seconds)}$"):
        spend(TimeoutBudget(5), fetch, seconds=seconds, default=None)


@pytest.mark.parametrize("share", NO_SHARES, ids=lambda v: repr(v)[:8])
def test_share_that_is_none_is_refused(spend: Run, share: Any) -> None:  # noqa: ANN401 - anything
    """An allocation lies in (0, 1]; the error names the function, and no default hides it."""
    with pytest.raises(ConfigurationError, match=f"^fetch: allocation .*{said(share)}$"):
        spend(TimeoutBudget(5), fetch, allocation=share, default=None)


def test_shares_of_more_than_the_whole_are_refused(spend: Run) -> None:
    """Allocations sum to 1 at most; the one too many is named with what was left for it."""
    budget = TimeoutBudget(5)
    for _ in range(8):
        spend(budget, str, allocation=0.1)

    with pytest.raises(ConfigurationError, match=r"^fetch: an allocation of 0.3 .* 0.2 that"):
        spend(budget, fetch, allocation=0.3)

    spend(budget, str, allocation=0.2)


def test_share_and_seconds_together_are_refused(spend: Run) -> None:
    """A call has one share, said in one way."""
    with pytest.raises(ConfigurationError, match=r"^fetch: give it an allocation or seconds"):
        spend(TimeoutBudget(5), fetch, allocation=0.5, seconds=1)


def test_mistake_changes_nothing(spend: Run) -> None:
    """A refused call has spent nothing of the budget, and is not told of."""
    budget = TimeoutBudget(5)
    for mistake in ({"allocation": 2}, {"seconds": -1}, {"allocation": 1, "seconds": 1}):
        with pytest.raises(ConfigurationError):
            spend(budget, fetch, **mistake)

    spend(budget, str, allocation=1)

    assert [one.what for one in budget.spent] == ["str"]
    assert current_budget() is None
