"""What became of faults that were ordered to see what degrades."""

import logging
from dataclasses import dataclass

from resilience.events.base import Event


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultOrdered(Event, severity=logging.WARNING):
    """Somebody gave an order about a fault, or about all.

    Attributes:
        fault: Its name; `all`.
        order: `set` or `cleared`; for all `stopped` or `allowed`.
        until: Fleet time at which the order ends by itself; None: it ends another.
        actor: Who ordered it.
        reason: Why.
    """

    fault: str
    order: str
    until: float | None
    actor: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultInjected(Event, severity=logging.WARNING, crowds=True):
    """A fault was injected into a call.

    Attributes:
        fault: Its name.
        kind: What it does: `error`, `latency`, `hang`, `refuse` or `execute-then-timeout`.
        dependency: Whose call.
        call: What was called: a task's name, or a pipeline's.
    """

    fault: str
    kind: str
    dependency: str
    call: str
