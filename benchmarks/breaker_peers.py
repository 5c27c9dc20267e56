"""Other breakers for Python around the same no-op, each as its documentation says to use it."""

from collections.abc import Awaitable, Callable

import circuitbreaker  # type: ignore[import-untyped] # it has no types
import interlock
import purgatory
import pybreaker

Call = Callable[[], object]
AsyncCall = Callable[[], Awaitable[object]]


def noop() -> int:
    """Return at once."""
    return 1


async def noop_async() -> int:
    """Return at once, too."""
    return 1


def guarded() -> dict[str, Call]:
    """Return the no-op guarded by each peer; all of them count in this process only."""
    return {
        "circuitbreaker": circuitbreaker.circuit(noop),
        "purgatory": purgatory.SyncCircuitBreakerFactory()("noop")(noop),
        "pybreaker": pybreaker.CircuitBreaker()(noop),
        "interlock_cb": interlock.CircuitBreaker(name="noop")(noop),
    }


def guarded_async() -> dict[str, AsyncCall]:
    """Return the asynchronous no-op guarded by each peer that can."""
    return {
        "circuitbreaker": circuitbreaker.circuit(noop_async),
        "purgatory": purgatory.AsyncCircuitBreakerFactory()("noop")(noop_async),
        "interlock_cb": interlock.CircuitBreaker(name="noop")(noop_async),
    }
