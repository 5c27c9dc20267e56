"""What a key-value source must offer, and what may guard its primary."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, ParamSpec, Protocol, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Versioned:
    """A value as it was read, with its version.

    Attributes:
        value: The value; None if there is none.
        version: Greater after each write to the key, deletions among them.
    """

    value: Any
    version: int


class Replica(Protocol):
    """Answers reads. It may also have a method `lag_seconds()`.

    `lag_seconds()` returns how long ago everything was committed that it shows, an upper bound;
    None: unknown.
    """

    def read(self, key: str) -> Any:  # noqa: ANN401 - a value or a Versioned
        """Return the value of *key*, None if there is none; with its version if it has one."""
        ...


class Primary(Replica, Protocol):
    """Answers reads and takes writes, which all see each other."""

    def write(self, key: str, value: Any) -> int | None:  # noqa: ANN401 - the source's
        """Set the value of *key*; return its version if it has one."""
        ...

    def delete(self, key: str) -> int | None:
        """Leave *key* without a value; return the version of that if it has one."""
        ...


class AsyncReplica(Protocol):
    """A `Replica` for an event loop; its `lag_seconds()`, if any, is a coroutine function."""

    async def read(self, key: str) -> Any:  # noqa: ANN401 - a value or a Versioned
        """Do the same as `Replica.read`."""
        ...


class AsyncPrimary(AsyncReplica, Protocol):
    """A `Primary` for an event loop."""

    async def write(self, key: str, value: Any) -> int | None:  # noqa: ANN401 - the source's
        """Do the same as `Primary.write`."""
        ...

    async def delete(self, key: str) -> int | None:
        """Do the same as `Primary.delete`."""
        ...


AnyReplica = Replica | AsyncReplica
AnyPrimary = Primary | AsyncPrimary


class Guard(Protocol):
    """What the primary is called through, such as a `Breaker`."""

    def call(self, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Return `function(*args, **kwargs)`, or refuse."""
        ...

    async def acall(
        self, function: Callable[P, Awaitable[R]], /, *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """Return `await function(*args, **kwargs)`, or refuse."""
        ...


class Unguarded:
    """The guard of a primary that has none."""

    def call(self, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Return `function(*args, **kwargs)`."""
        return function(*args, **kwargs)

    async def acall(
        self, function: Callable[P, Awaitable[R]], /, *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """Return `await function(*args, **kwargs)`."""
        return await function(*args, **kwargs)
