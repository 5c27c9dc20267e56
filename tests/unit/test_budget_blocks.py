"""Blocks under a budget, one inside the other: nobody has more time than who called."""

import asyncio
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from resilience import BudgetExceededError, TimeoutBudget, current_budget
from tests.unit.budgets import HANG_SECONDS, Run, hang, left_here
from tests.unit.calling import raising
from tests.unit.stopwatch import elapsed


@pytest.fixture(autouse=True)
def _no_budget_is_left_behind() -> Iterator[None]:
    """Whatever a test does, no code after it runs under its budget."""
    yield
    assert current_budget() is None


@pytest.mark.parametrize(("outer", "inner"), [(2, 10), (10, 2)])
def test_inner_budget_never_reaches_beyond_the_outer_one(outer: int, inner: int) -> None:
    """Of nested budgets the smaller counts, whichever it is."""
    with TimeoutBudget(outer), TimeoutBudget(inner) as budget:
        assert 1 < budget.remaining() <= 2


def test_budget_made_before_never_reaches_beyond_the_block_it_is_entered_in() -> None:
    """Code inside a block has no more than the block, wherever its own budget comes from."""
    early = TimeoutBudget(10)

    with TimeoutBudget(2), early:
        assert left_here() <= 2


def test_allocation_is_a_share_of_what_there_is(spend: Run) -> None:
    """In a block that has less than the total, the first call cannot take the others' shares."""
    with TimeoutBudget(2):
        budget = TimeoutBudget(10)
        assert spend(budget, left_here, allocation=0.5) <= 1

    late = TimeoutBudget.until(TimeoutBudget(2).deadline, 10)
    assert spend(late, left_here, allocation=0.5) <= 1


def test_nested_run_is_cut_with_the_outer_one(spend: Run) -> None:
    """A call inside a call ends with it, even if it declares more time and has a default."""

    def inner() -> None:
        TimeoutBudget(HANG_SECONDS).run(hang, default=None)
        hang()

    def cut() -> None:
        with pytest.raises(BudgetExceededError):
            TimeoutBudget(0.2).run(inner)

    assert elapsed(cut) < 2
    assert spend(TimeoutBudget(5), str) == ""


def test_current_budget_is_the_innermost_block() -> None:
    """Blocks nest, with and without await, and each ends as it began, also on an error."""

    async def nested(outer: TimeoutBudget) -> None:
        assert current_budget() is outer
        async with TimeoutBudget(5) as inner:
            assert current_budget() is inner
        assert current_budget() is outer

    with TimeoutBudget(5) as outer:
        with pytest.raises(OSError, match="gone"), TimeoutBudget(5):
            raising(OSError("gone"))()
        asyncio.run(nested(outer))
        assert current_budget() is outer


def test_budget_is_entered_once() -> None:
    """A second block of the same budget, inside or after, is a mistake and changes nothing."""
    with TimeoutBudget(5) as budget:
        with pytest.raises(RuntimeError, match="make one for each block"), budget:
            pass
        assert current_budget() is budget
    with pytest.raises(RuntimeError, match="make one for each block"):
        asyncio.run(budget.__aenter__())


def test_blocks_may_overlap() -> None:
    """Generators that open a block are closed in any order, and none leaves its budget behind."""

    def opened(seconds: float) -> Generator[TimeoutBudget, None, None]:
        with TimeoutBudget(seconds) as budget:
            yield budget

    with TimeoutBudget(10) as outer:
        first, second = opened(9), opened(5)
        next(first)
        next(second)

        first.close()
        assert current_budget() is outer
        second.close()
        assert current_budget() is outer


def test_block_ends_those_inside_it() -> None:
    """A cut may come while an inner block ends, which then does not: the outer one's end counts."""
    with TimeoutBudget(10):
        TimeoutBudget(5).__enter__()
        TimeoutBudget(5).__enter__()

    assert current_budget() is None


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # and rung again
def test_cuts_that_come_at_the_same_time_leave_no_budget_behind() -> None:
    """Whenever nested calls are cut, the code after them is under no budget of theirs."""

    def inner() -> None:
        for _ in range(1000):
            TimeoutBudget(0.001).run(str, default=None)

    for number in range(300):
        TimeoutBudget(0.0005 + number * 1e-6).run(inner, default=None)
        assert current_budget() is None


def test_block_may_end_in_another_context() -> None:
    """A web framework that begins a block in one thread and ends it in another gets no error."""
    budget = TimeoutBudget(5)
    with ThreadPoolExecutor(1) as pool:
        pool.submit(budget.__enter__).result()

    budget.__exit__(None, None, None)

    assert current_budget() is None


def test_work_that_outlives_its_block_stays_under_its_budget() -> None:
    """A coroutine that was begun in a block has no more time once the block has ended."""

    async def outlive(ended: asyncio.Event) -> float:
        await ended.wait()
        with TimeoutBudget(1):
            pass
        return left_here()

    async def begin() -> float:
        ended = asyncio.Event()
        async with TimeoutBudget(5):
            task = asyncio.create_task(outlive(ended))
            await asyncio.sleep(0)
        ended.set()
        return await task

    assert 1 < asyncio.run(begin()) <= 5
