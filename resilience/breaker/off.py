"""The breaker of a dependency that has none."""

from collections.abc import Awaitable, Callable
from typing import ParamSpec, TypeVar

from resilience.breaker.state import State

P = ParamSpec("P")
R = TypeVar("R")


class NoBreaker:
    """Lets every call through and counts nothing."""

    state = known_state = State.CLOSED

    def call(self, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Return `function(*args, **kwargs)`."""
        return function(*args, **kwargs)

    async def acall(
        self, function: Callable[P, Awaitable[R]], /, *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """Return `await function(*args, **kwargs)`."""
        return await function(*args, **kwargs)

    def refusal(self) -> None:
        """Refuse nothing."""

    async def refusal_async(self) -> None:
        """Refuse nothing."""

    def record_failure(self, error: BaseException) -> None:
        """Forget *error*."""

    def blames(self, error: BaseException) -> bool:  # noqa: ARG002 - as Breaker
        """Blame nothing."""
        return False
