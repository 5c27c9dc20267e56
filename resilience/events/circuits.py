"""What became of circuits, and of the store that they are agreed in."""

import logging
from dataclasses import dataclass

from resilience.events.base import Event


@dataclass(frozen=True, slots=True, kw_only=True)
class CircuitOpened(Event, severity=logging.ERROR):
    """A circuit went from closed or half-open to open. Announced once in the fleet.

    Attributes:
        dependency: Whose circuit.
        reason: What was seen.
        calls: Calls in the window, or probes.
        failed: How many of them failed.
        slow: How many of them were slow.
        seconds: How long it refuses before it probes.
        scope: `fleet`, or `local` if this process has lost the store.
        observed: Whether it only would have opened, as somebody ordered to observe.
        error: Class and text of the last failure that this process saw; empty: it saw none.
    """

    dependency: str
    reason: str
    calls: int
    failed: int
    slow: int
    seconds: float
    scope: str
    observed: bool = False
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CircuitHalfOpened(Event):
    """An open circuit let its first probe through. Announced once in the fleet."""

    dependency: str
    permits: int
    scope: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CircuitClosed(Event):
    """A half-open circuit closed, because its probes passed. Announced once in the fleet."""

    dependency: str
    probes: int
    failed: int
    scope: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CircuitForced(Event, severity=logging.WARNING):
    """Somebody ordered what a circuit does.

    Attributes:
        dependency: Whose circuit.
        order: `forced_open`, `forced_closed`, `observed` or `reset`.
        seconds: How long the order holds; 0 for a reset.
        actor: Who ordered it.
        reason: Why.
    """

    dependency: str
    order: str
    seconds: float
    actor: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreLost(Event, severity=logging.ERROR):
    """The shared store stopped answering this process."""

    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreValueUnreadable(Event, severity=logging.ERROR, crowds=True):
    """The store holds what no process of ours can have written; it counts as absent.

    Attributes:
        key: Its key in the namespace, such as `circuits`; empty: the store did not say which.
        name: Of the value within that key, such as a dependency; empty: all of it.
        error: What is wrong with it.
    """

    key: str
    name: str
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreFound(Event):
    """The shared store answers this process again."""
