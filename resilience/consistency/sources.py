"""What a key-value source must offer."""

from dataclasses import dataclass
from typing import Any, Protocol


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

    An `AsyncConsistentReader` takes the same with coroutine functions in place of all methods.
    """

    def read(self, key: str) -> Any:  # noqa: ANN401 - a value or a Versioned
        """Return the value of *key*, None if there is none; with its version if it has one."""
        ...


class Primary(Replica, Protocol):
    """Answers reads and takes writes, which all see each other."""

    def write(self, key: str, value: Any) -> Any:  # noqa: ANN401 - the source's
        """Set the value of *key*; return its version if it has one."""
        ...

    def delete(self, key: str) -> Any:  # noqa: ANN401 - as above
        """Leave *key* without a value; return the version of that if it has one."""
        ...
