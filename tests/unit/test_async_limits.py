"""Limits of coroutines: what cuts them, how often, and which error comes out."""

import asyncio
from contextlib import suppress
from time import perf_counter

import pytest

from resilience.budget.limits import time_limit_async

ENDLESS_SECONDS = 5.0


class LateError(Exception):
    """What the limit of a test raises."""


def test_coroutine_that_handles_its_cut_is_cut_again() -> None:
    """Until it ends, and then in the limit's error, though it returns."""

    async def stubborn() -> None:
        async with time_limit_async(0.05, LateError):
            for _ in range(3):
                with suppress(asyncio.CancelledError):
                    await asyncio.sleep(ENDLESS_SECONDS)

    began = perf_counter()
    with pytest.raises(LateError):
        asyncio.run(stubborn())

    assert perf_counter() - began < ENDLESS_SECONDS


def test_coroutine_that_somebody_else_cancels_too_is_cancelled() -> None:
    """The limit's error does not hide that the task is to end."""

    async def cancelled() -> None:
        cleaning = asyncio.Event()

        async def limited() -> None:
            async with time_limit_async(0.05, LateError):
                try:
                    await asyncio.sleep(ENDLESS_SECONDS)
                finally:
                    cleaning.set()
                    await asyncio.sleep(ENDLESS_SECONDS)

        task = asyncio.create_task(limited())
        await cleaning.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancelled())


def test_coroutine_that_fails_while_it_is_cut_fails_with_its_own_error() -> None:
    """What went wrong when it cleaned up is not lost."""

    async def failing() -> None:
        async with time_limit_async(0.05, LateError):
            try:
                await asyncio.sleep(ENDLESS_SECONDS)
            finally:
                raise ConnectionError

    with pytest.raises(ConnectionError):
        asyncio.run(failing())


def test_limit_outside_a_task_is_refused() -> None:
    """There would be nothing to cancel."""

    async def call() -> RuntimeError:
        loop = asyncio.get_running_loop()
        refused: asyncio.Future[RuntimeError] = loop.create_future()

        def enter() -> None:
            try:
                time_limit_async(1.0, LateError).__aenter__().send(None)
            except RuntimeError as error:
                refused.set_result(error)

        loop.call_soon(enter)
        return await refused

    assert str(asyncio.run(call())) == "a limit in time needs a running task"
