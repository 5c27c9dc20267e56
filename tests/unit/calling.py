"""The two ways to call a function through a pipeline."""

import asyncio
from collections.abc import Callable
from typing import Any

from resilience.pipeline import Pipeline

Run = Callable[..., Any]
"""Calls `run(pipeline, function, *args, **kwargs)`, one way or the other."""


def run_sync(pipeline: Pipeline, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - handed on
    """Call *function* through *pipeline* as it is."""
    return pipeline.call(function, *args, **kwargs)


def run_async(
    pipeline: Pipeline,
    function: Callable[..., Any],
    /,
    *args: Any,  # noqa: ANN401 - handed on
    **kwargs: Any,  # noqa: ANN401 - handed on
) -> Any:  # noqa: ANN401 - what the function returns
    """Call *function* through *pipeline* as a coroutine function, on an event loop of its own."""

    async def coroutine_function(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - handed on
        return function(*args, **kwargs)

    return asyncio.run(pipeline.call_async(coroutine_function, *args, **kwargs))
