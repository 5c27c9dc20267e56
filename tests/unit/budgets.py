"""What tests of budgets call, and how."""

import asyncio
import functools
import threading
from collections.abc import Callable
from typing import Any

from resilience import TimeoutBudget, current_budget

HANG_SECONDS = 10.0
"""How long a call takes that nothing cuts: long enough to notice, short enough to end."""

Run = Callable[..., Any]
"""Calls `run(budget, function, *args, **options)`, one way or the other."""


def hang() -> None:
    """Take far too long, without keeping an event loop from going on."""
    threading.Event().wait(HANG_SECONDS)


def run_sync(
    budget: TimeoutBudget,
    function: Callable[..., Any],
    /,
    *args: Any,  # noqa: ANN401 - handed on
    **more: Any,  # noqa: ANN401 - handed on
) -> Any:  # noqa: ANN401 - what the function returns
    """Run *function* under *budget* as it is."""
    return budget.run(function, *args, **more)


def run_async(
    budget: TimeoutBudget,
    function: Callable[..., Any],
    /,
    *args: Any,  # noqa: ANN401 - handed on
    **more: Any,  # noqa: ANN401 - handed on
) -> Any:  # noqa: ANN401 - what the function returns
    """Run *function* under *budget* as a coroutine function, on an event loop of its own."""

    @functools.wraps(function)
    async def coroutine_function(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - handed on
        if function is hang:
            await asyncio.sleep(HANG_SECONDS)
        return function(*args, **kwargs)

    return asyncio.run(budget.arun(coroutine_function, *args, **more))


def spent(seconds: float = 1e-6) -> TimeoutBudget:
    """Return a budget of which nothing is left."""
    budget = TimeoutBudget(seconds)
    while budget.remaining():
        pass
    return budget


def left_here() -> float:
    """Return the seconds that the code which runs here has."""
    budget = current_budget()
    assert budget is not None
    return budget.remaining()
