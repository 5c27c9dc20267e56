"""What became of reads that a primary or a replica could not answer as it should."""

import logging
from dataclasses import dataclass

from resilience.events.base import Event


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadStale(Event, severity=logging.WARNING, crowds=True):
    """A read was answered with something that may be older than it should be.

    Attributes:
        source: Name of the databases, or of the reader.
        reason: Why nobody better answered.
        lag_seconds: The answer shows everything that was committed at least `lag_seconds` ago;
            None: unknown.
    """

    source: str
    reason: str
    lag_seconds: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadFellBack(Event, crowds=True):
    """The primary answered a read that was meant for a replica.

    Attributes:
        source: Name of the databases.
        reason: Why no replica answered.
    """

    source: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaLagging(Event, severity=logging.WARNING, crowds=True):
    """A replica is too far behind to be read from.

    Attributes:
        source: Name of the databases.
        replica: Which replica.
        lag_seconds: It shows everything that was committed at least `lag_seconds` ago; None:
            unknown.
    """

    source: str
    replica: str
    lag_seconds: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LagOrdered(Event, severity=logging.WARNING):
    """Somebody ordered how far the replicas of some databases may lag.

    Attributes:
        source: Name of the databases.
        order: `allow-lag`, `ignore-lag`, or `obey-lag` if an order was ended.
        seconds: How far `allow-lag` lets them lag; None: another command gave the order.
        until: Fleet time at which the order ends, or would have ended; None: open end.
        actor: Who ordered it.
        reason: Why.
    """

    source: str
    order: str
    seconds: float | None
    until: float | None
    actor: str
    reason: str
