"""How long one call may take, in numbers, and in which error it ends if it takes longer."""

import pytest

from resilience import TimeoutBudget
from resilience.budget.allowance import Allowance
from resilience.errors import AttemptTimeoutError, BudgetExceededError, CircuitOpenError


class Fixed(TimeoutBudget):
    """A budget in which no time passes."""

    __slots__ = ("left",)
    left: float

    def remaining(self) -> float:
        """Return what is left."""
        return self.left


def budget(left: float, *, total: float = 1000.0) -> Fixed:
    """Return a budget of *total* seconds with *left* of them."""
    made = Fixed(total)
    made.left = left
    return made


def test_call_without_a_budget_has_its_own_timeout() -> None:
    """A dependency without one limits nothing."""
    own = Allowance("load", "users", 2.0).own
    assert own is not None
    seconds, error = own

    assert seconds == 2.0
    assert error().args == AttemptTimeoutError("users", 2.0).args
    assert Allowance("load", "users", None).own is None


@pytest.mark.parametrize(
    ("timeout", "left", "expected"),
    [
        pytest.param(2.0, 10.0, 2.0, id="own-timeout"),
        pytest.param(2.0, 2.05, 2.0, id="own-timeout-just-fits"),
        pytest.param(2.0, 2.0, 1.95, id="budget-less-its-reserve"),
        pytest.param(2.0, 0.5, 0.475, id="a-twentieth-of-little"),
        pytest.param(None, 100.0, 99.95, id="a-twentieth-of-a-second-at-most"),
    ],
)
def test_call_has_its_timeout_or_what_the_budget_leaves(
    timeout: float | None, left: float, expected: float
) -> None:
    """The reserve is for what comes after the call: a twentieth, at most 0.05 s."""
    seconds, error = Allowance("load", "users", timeout).within(budget(left, total=left))
    raised = error()

    assert seconds == pytest.approx(expected)
    assert isinstance(raised, AttemptTimeoutError)
    assert raised.args == ("users", seconds)


@pytest.mark.parametrize(
    ("timeout", "total", "left", "blames"),
    [
        pytest.param(10.0, 1000.0, 1.06, True, id="a-tenth-of-its-timeout"),
        pytest.param(10.0, 1000.0, 1.05, True, id="just-a-tenth"),
        pytest.param(10.0, 1000.0, 1.04, False, id="less"),
        pytest.param(None, 10.0, 1.06, True, id="a-tenth-of-the-budget"),
        pytest.param(None, 10.0, 1.04, False, id="less-of-the-budget"),
    ],
)
def test_cut_counts_against_the_dependency_if_the_call_had_a_tenth_of_its_time(
    timeout: float | None, total: float, left: float, *, blames: bool
) -> None:
    """Of its timeout, or of the budget if it has none; else the budget was too small."""
    given = budget(left, total=total)
    seconds, error = Allowance("load", "users", timeout).within(given)
    raised = error()

    assert isinstance(raised, AttemptTimeoutError if blames else BudgetExceededError)
    if not blames:
        assert raised.args == ("load", seconds, left, total, False)


@pytest.mark.parametrize("left", [0.0, -1.0])
def test_nothing_is_called_when_nothing_is_left(left: float) -> None:
    """The error names what was not begun."""
    with pytest.raises(BudgetExceededError) as caught:
        Allowance("load", "users", 2.0).within(budget(left))

    assert caught.value.args == ("load", 0.0, left, 1000.0, False)


def test_step_has_the_timeout_or_what_is_left_whichever_is_less() -> None:
    """Its error names the step. Without timeout and budget nothing limits it."""
    bounded, endless = Allowance("load", "users", 2.0), Allowance("load", "users", None)

    assert endless.of_step("segment") is None
    limit = bounded.of_step("segment")
    assert limit is not None
    assert limit[0] == 2.0
    assert limit[1]().args == ("segment", 2.0)
    with budget(1.0):
        for allowance in (bounded, endless):
            limit = allowance.of_step("segment")
            assert limit is not None
            assert limit[0] == pytest.approx(0.95)
            assert limit[1]().args == ("segment", limit[0])
    with budget(10.0):
        limit = bounded.of_step("segment")
        assert limit is not None
        assert limit[0] == 2.0
    with budget(0.0), pytest.raises(BudgetExceededError) as caught:
        bounded.of_step("segment")
    assert caught.value.args == ("segment", 0.0, 0.0, 1000.0, False)


@pytest.mark.parametrize(
    ("had", "left", "excused"),
    [
        pytest.param(0.9, 0.18, True, id="gave-up-as-its-time-ran-out"),
        pytest.param(0.9, 0.19, False, id="failed-before"),
        pytest.param(1.0, 0.1, False, id="had-a-tenth-of-its-timeout"),
    ],
)
def test_client_that_gave_up_for_lack_of_time_counts_no_more_than_a_cut(
    had: float, left: float, *, excused: bool
) -> None:
    """Its own error says nothing about the dependency then; it is the cause."""
    allowance, error = Allowance("load", "users", 10.0), ConnectionError("timed out")
    cut = BudgetExceededError("load", had, left, 1000.0)
    limit = (had, lambda: cut)

    allowance.excuse(error, None, limit)
    if not excused:
        allowance.excuse(error, budget(left), limit)
        return
    with pytest.raises(BudgetExceededError) as caught:
        allowance.excuse(error, budget(left), limit)
    assert caught.value is cut
    assert caught.value.__cause__ is error


def test_refusal_does_not_lack_time() -> None:
    """Nothing was sent, however little was left: the caller gets the refusal itself."""
    limit = (0.9, lambda: BudgetExceededError("load", 0.9, 0.1, 1000.0))

    Allowance("load", "users", 10.0).excuse(CircuitOpenError("users"), budget(0.1), limit)
