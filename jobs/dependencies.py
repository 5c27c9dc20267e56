"""Whom the shop calls, and how much of it at once."""

from collections.abc import Sequence
from typing import Final

from resilience import BreakerPolicy, Dependency
from resilience.consistency.errors import DatabaseUnavailableError

MAX_QUEUE: Final = 24
"""Jobs for ranking and spelling that may wait. A search waits 0.75 s for them; in that time the
workers do more only if each takes less than 0.06 s. From a fifth of them on features are shed."""

EACH_SERVER_ITS_OWN: Final = BreakerPolicy(ignore=(DatabaseUnavailableError,))

DEPENDENCIES: Final[Sequence[Dependency]] = (
    Dependency("users", concurrency=2, timeout=0.8),
    Dependency("recommendations", concurrency=4, timeout=0.8),
    Dependency("payments", concurrency=4, timeout=1.2),
    Dependency("search", concurrency=2, timeout=0.8, max_queue=MAX_QUEUE),
    Dependency("notifications", concurrency=2, timeout=5.0),
    # Each of its servers has a circuit of its own: one that is down must not stop the others.
    Dependency("database", concurrency=4, timeout=0.8, breaker=EACH_SERVER_ITS_OWN),
)

CLIENT_SHARE: Final = 0.65
"""A client gives up after this share of its dependency's timeout: its own error says more."""


def client_seconds(name: str) -> float:
    """Return how long a client of the dependency called *name* waits for anything.

    Raises:
        KeyError: There is no such dependency, or it has no timeout.
    """
    return CLIENT_SHARE * {one.name: one.timeout for one in DEPENDENCIES if one.timeout}[name]
