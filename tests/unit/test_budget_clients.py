"""How long a client may wait now."""

import math
import subprocess
import sys

import pytest

from resilience import BudgetExceededError, ConfigurationError, TimeoutBudget
from resilience.budget import client_timeout

LOADS_NOTHING = """
import sys
import resilience.budget
print(sorted({"httpx", "requests", "psycopg"} & sys.modules.keys()))
"""


@pytest.mark.parametrize("at_most", [None, 0.2, 3])
def test_client_waits_as_it_says_itself_without_a_budget(at_most: float | None) -> None:
    """Nothing changes for code outside of budgets."""
    assert client_timeout(at_most) == at_most


def test_client_waits_a_little_less_than_what_remains() -> None:
    """A tenth is left, so that the client's own error comes before the cut."""
    with TimeoutBudget(0.5) as budget:
        seconds = client_timeout()
        after = budget.remaining()

    assert seconds is not None
    assert 0.9 * after <= seconds <= 0.9 * 0.5


def test_client_of_a_long_budget_leaves_no_more_than_a_tenth_of_a_second() -> None:
    """The margin does not grow with the budget."""
    with TimeoutBudget(600):
        seconds = client_timeout()

    assert seconds is not None
    assert 598 < seconds <= 599.9


def test_client_waits_the_shorter_of_its_own_and_the_budgets() -> None:
    """Neither makes the other longer."""
    with TimeoutBudget(10):
        assert client_timeout(0.25) == 0.25
        assert client_timeout(20) == pytest.approx(9.9, abs=0.5)


def test_client_has_its_share_inside_a_call_of_a_budget() -> None:
    """The budget of the call counts, not that of the whole."""
    with TimeoutBudget(100) as budget:
        seconds = budget.run(client_timeout, allocation=0.1)

    assert seconds == pytest.approx(9.9, abs=0.5)


def test_client_is_not_called_when_nothing_is_left() -> None:
    """What cannot be answered in time is not asked."""
    over = TimeoutBudget.until(-1.0, total=2.0)

    with over, pytest.raises(BudgetExceededError, match="was not begun") as caught:
        client_timeout(5)

    assert caught.value.total == 2.0
    assert not caught.value.conclusive


@pytest.mark.parametrize("wrong", [0, -1, math.nan, math.inf, True, "5"])
def test_own_timeout_that_is_no_time_is_refused(wrong: object) -> None:
    """The error names the function and the value."""
    with pytest.raises(ConfigurationError, match="client_timeout") as caught:
        client_timeout(wrong)  # type: ignore[arg-type]

    assert repr(wrong) in str(caught.value)


def test_no_client_is_loaded_with_the_helpers() -> None:
    """Who uses none of the libraries neither needs nor pays for them."""
    said = subprocess.run(  # noqa: S603 - ours
        [sys.executable, "-c", LOADS_NOTHING], check=True, capture_output=True, text=True
    )

    assert said.stdout.strip() == "[]"
