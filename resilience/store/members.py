"""Who takes part in the pulse."""

from collections.abc import Generator
from typing import Any, Protocol, TypeVar

from resilience.store.fleet import Batch, Evidence, Kept, Question, Window

T = TypeVar("T")
Steps = Generator[Question, Any, T]
"""What a breaker does off the hot path. The generator yields questions to the fleet, is sent their
answers, and returns a result."""


class Member(Protocol):
    """A breaker, as the pulse sees it."""

    name: str

    def evidence(self, now: float) -> Evidence | None:
        """Return what was seen since the last pulse, and forget it."""
        ...

    def adopt(self, kept: Kept | None, until: float) -> None:
        """Take over the circuit, which may admit calls until *until*, in monotonic seconds."""
        ...

    def judge(self, window: Window) -> Steps[None]:
        """Decide what follows from what the fleet has seen."""
        ...

    def restart(self) -> None:
        """Forget what was seen before the fork."""
        ...


class Watcher(Protocol):
    """Receives the state of the features."""

    @property
    def version(self) -> int:
        """Version of the state that it has."""
        ...

    def receive(self, flags: bytes | None) -> None:
        """Take the state from the store: empty if there is none, None if it has not changed."""
        ...

    def restart(self) -> None:
        """Go on in a forked child."""
        ...


class Tally(Protocol):
    """Counts what the pulse is to add to the fleet's totals."""

    def batch(self) -> Batch | None:
        """Return what is due: the last batch again until it was settled."""
        ...

    def settle(self, number: int, why_not: str) -> None:
        """Forget that batch if it was added; *why_not* is empty then."""
        ...

    def restart(self) -> None:
        """Forget what was counted before the fork."""
        ...
