"""What tests of pipelines call, and how."""

import asyncio
from collections.abc import Callable
from typing import Any, NoReturn

from resilience.events import Event
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


class Listening:
    """A listener that keeps what it hears."""

    def __init__(self) -> None:
        """Hear nothing yet."""
        self.heard: list[Event] = []

    def __call__(self, event: Event) -> None:
        """Keep *event*."""
        self.heard.append(event)


def raising(error: BaseException) -> Callable[..., NoReturn]:
    """Return a function that raises *error*, whatever it is given."""

    def failing(*_: object, **__: object) -> NoReturn:
        raise error

    return failing
