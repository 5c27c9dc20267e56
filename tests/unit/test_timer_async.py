"""Limits in time of coroutines: what they cancel, and what they let through."""

import asyncio
from contextlib import suppress

import pytest

from resilience.budget import time_limit_async
from tests.unit.stopwatch import elapsed

ENDLESS_SECONDS = 10.0
"""How long a block takes that nothing cuts: long enough to notice, short enough to end."""


class LateError(Exception):
    """What the limit of a test raises."""


def test_async_limit_cuts_what_the_block_awaits() -> None:
    """A coroutine that takes too long is cancelled, and the limit's error raised instead."""

    async def late() -> None:
        async with time_limit_async(0.05, LateError):
            await asyncio.sleep(ENDLESS_SECONDS)

    def cut() -> None:
        with pytest.raises(LateError):
            asyncio.run(late())

    assert elapsed(cut) < 2


def test_async_limit_lets_the_blocks_own_timeout_through() -> None:
    """A `TimeoutError` of the block itself is not mistaken for the limit."""

    async def impatient() -> None:
        async with time_limit_async(5, LateError):
            raise TimeoutError

    with pytest.raises(TimeoutError):
        asyncio.run(impatient())


def test_async_limit_lets_a_cancellation_through() -> None:
    """Who cancels the task cancels it: the limit does not turn that into its error."""

    async def cancelled() -> None:
        started = asyncio.Event()

        async def block() -> None:
            async with time_limit_async(5, LateError):
                started.set()
                await asyncio.sleep(ENDLESS_SECONDS)

        task = asyncio.create_task(block())
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancelled())


def test_async_limits_of_concurrent_calls_do_not_meet() -> None:
    """Each of many calls on one loop is cut by its own limit only."""

    async def limited(seconds: float) -> str:
        try:
            async with time_limit_async(seconds, LateError):
                await asyncio.sleep(0.2)
        except LateError:
            return "cut"
        return "done"

    async def together() -> list[str]:
        return await asyncio.gather(*(limited(seconds) for seconds in (0.05, 5, 0.1, 5)))

    assert asyncio.run(together()) == ["cut", "done", "cut", "done"]


def test_async_block_that_handles_its_cancellation_is_cancelled_until_it_ends() -> None:
    """What swallows the cut once, or returns after it, ends in the limit's error all the same."""

    async def swallowing() -> None:
        for _ in range(3):
            with suppress(BaseException):
                await asyncio.sleep(ENDLESS_SECONDS)

    async def limited() -> int:
        with pytest.raises(LateError):
            async with time_limit_async(0.05, LateError):
                await swallowing()
        task = asyncio.current_task()
        assert task is not None
        return task.cancelling()

    def cut() -> None:
        assert asyncio.run(limited()) == 0

    assert elapsed(cut) < ENDLESS_SECONDS
