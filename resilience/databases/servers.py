"""A primary and its replicas, and what the fleet knows of them."""

import asyncio
import os
import threading
import weakref
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

from sqlalchemy import URL, Connection, Engine
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.util import greenlet_spawn

from resilience.breaker import Breaker, BreakerPolicy
from resilience.clock import Clock, SystemClock
from resilience.consistency import Position, Token
from resilience.consistency.errors import DatabaseUnavailableError
from resilience.consistency.shared import Sample, SharedPositions
from resilience.consistency.token import EVERYWHERE
from resilience.databases.lag import PrimaryHistory
from resilience.databases.measured import Measured
from resilience.databases.server import UNREACHABLE, Server, why_unreachable
from resilience.databases.share import FallbackShare
from resilience.errors import ConfigurationError, retry_after_of
from resilience.events import Event, Listener, ReplicaLagging, announce, log_event
from resilience.pulse import Pulse

PRIMARY_FAILURES: Final = 3
REPLICA_FAILURES: Final = 1
"""Connections in a row that must fail for a circuit to open: there are other replicas."""
SAMPLE_SECONDS: Final = 1.0
"""Where the primary is is asked again when the last answer of any process is so old."""

NAME_LENGTH_MAX: Final = 40
NOT_IN_NAMES: Final = frozenset("/*")

Address = str | URL | Engine | AsyncEngine


class Servers:
    """A primary and its replicas.

    Attributes:
        name: What the positions of this primary travel under.
        primary: The server that takes writes; `replicas`: those that replay them.
        history: Where the primary was, as the fleet saw it.
    """

    def __init__(  # noqa: PLR0913 - they are all named
        self,
        *,
        primary: Address,
        replicas: Sequence[Address] = (),
        name: str = "default",
        pulse: Pulse,
        positions: SharedPositions | None = None,
        listeners: Sequence[Listener] = (log_event,),
        wait_seconds: float = 0.05,
        position_cache_seconds: float = 0.05,
        primary_fallback_share: float = 0.2,
        max_lag_seconds: float = 60.0,
        clock: Clock | None = None,
        **engine_options: Any,  # noqa: ANN401 - SQLAlchemy's
    ) -> None:
        """Prepare; nothing is connected yet.

        Args:
            primary: URL or engine of the primary.
            replicas: URLs or engines of its replicas, one server each.
            name: Tells several primaries of an app apart.
            pulse: Connects the circuits of the servers with those of other processes.
            positions: Shares with them what is seen of the primary; None: this process is alone.
            listeners: Who hears of events.
            wait_seconds: How long a read waits for a replica that is behind, within its budget.
            position_cache_seconds: How long a connection's last answer to "how far?" holds.
            primary_fallback_share: Of all reads, so many may go to the primary because no replica
                can answer, in (0, 1]; then they are stale, and marked.
            max_lag_seconds: A replica farther behind answers only what is marked.
            clock: Where time comes from.
            **engine_options: Of `sqlalchemy.create_engine`, for all engines made of URLs.

        Raises:
            ConfigurationError: An address cannot be read, a number is out of range, or the database
                has no replicas.
        """
        for option, value in {
            "wait_seconds": wait_seconds,
            "position_cache_seconds": position_cache_seconds,
            "max_lag_seconds": max_lag_seconds,
        }.items():
            if not 0 <= value < float("inf"):
                msg = f"databases {name!r}: {option} must be 0 or more seconds, got {value!r}"
                raise ConfigurationError(msg)
        if not name or set(name) & NOT_IN_NAMES or len(name) > NAME_LENGTH_MAX:
            msg = f"a name has 1 to {NAME_LENGTH_MAX} characters, none of / and *; got {name!r:.80}"
            raise ConfigurationError(msg)
        self.name = name
        self.clock = clock or SystemClock()
        self.wait_seconds = wait_seconds
        self.position_cache_seconds = position_cache_seconds
        self.max_lag_seconds = max_lag_seconds
        self._pulse = pulse
        self._listeners = listeners
        self._share = FallbackShare(primary_fallback_share, self.clock)
        self._beside: tuple[threading.Thread | None, asyncio.Task[None] | None] = None, None
        self.history = PrimaryHistory(name, positions, self.clock)
        self.primary = self._server("primary", primary, PRIMARY_FAILURES, engine_options)
        self.replicas = tuple(
            self._server(f"replica {number}", address, REPLICA_FAILURES, engine_options)
            for number, address in enumerate(replicas, 1)
        )
        for server in (self.primary, *self.replicas) if replicas else ():
            if not server.has_positions:
                msg = (
                    f"databases {name!r}: {server.backend} has no positions, so it can have no "
                    "replicas here; use PostgreSQL or MariaDB, or a ConsistentReader"
                )
                raise ConfigurationError(msg)
        this = weakref.ref(self)
        os.register_at_fork(after_in_child=lambda: _restart(this))

    def covers(self, token: Token) -> bool:
        """Tell whether some replica has replayed all that *token* stands for, or none is needed."""
        needed = token.positions.get(self.name, Position())
        if self.name in token.unknown or EVERYWHERE in token.unknown:
            return False
        if not needed or not self.replicas:
            return True
        return any(self._has(replica, needed) for replica in self.replicas)

    def _has(self, replica: Server, needed: Position) -> bool:
        try:
            measured = replica.ask(asynchronous=False)
        except UNREACHABLE:
            return False
        return (
            self.history.why_not(measured) is None
            and self.why_late(replica, measured) is None
            and measured.position.covers(needed)
        )

    def measure_primary(self) -> Position | None:
        """Return where the primary is now; None: it does not answer.

        Raises:
            ConfigurationError: The database has no positions.
        """
        try:
            return self.primary.ask(asynchronous=False).position
        except UNREACHABLE:
            return None

    def open_primary(self, *, asynchronous: bool) -> Connection:
        """Return a connection to the primary, which has said once that it is one.

        Raises:
            DatabaseUnavailableError: It cannot be reached, or takes no writes.
        """
        primary = self.primary
        try:
            connection = primary.connect(asynchronous=asynchronous)
        except UNREACHABLE as error:
            raise self.unavailable(error) from error
        if not primary.has_positions:
            return connection
        known = primary.known(connection)
        try:
            measured = primary.measure(connection) if known is None else known[0]
        except UNREACHABLE as error:
            connection.close()
            raise self.unavailable(error) from error
        except BaseException:
            connection.close()
            raise
        if measured.is_replica:
            connection.invalidate()
            connection.close()
            raise DatabaseUnavailableError(self.name, "primary: it is a replica", None)
        return connection

    def unavailable(self, error: BaseException) -> DatabaseUnavailableError:
        """Return the error that says that the primary cannot be reached, and why."""
        return DatabaseUnavailableError(
            self.name, f"primary: {why_unreachable(error)}", retry_after_of(error)
        )

    def keep_up(self, *, asynchronous: bool) -> None:
        """Exchange with the fleet where the primary is, once a second at most, and beside the call.

        A primary that hangs must not delay those who read from replicas.
        """
        thread, task = self._beside
        if not self.replicas or (thread and thread.is_alive()) or (task and not task.done()):
            return
        if not self.history.due():
            return
        if asynchronous:
            self._beside = None, asyncio.get_running_loop().create_task(self._exchange_async())
            return
        thread = threading.Thread(target=self._exchange, name="primary-position", daemon=True)
        with suppress(RuntimeError):  # there may be no thread to be had
            thread.start()
            self._beside = thread, None

    def _exchange(self) -> None:
        self._sample(asynchronous=False)
        self.history.exchange()

    async def _exchange_async(self) -> None:
        await greenlet_spawn(self._sample, asynchronous=True)
        await self.history.exchange_async()

    def _sample(self, *, asynchronous: bool) -> None:
        """See where the primary is, unless somebody just did."""
        newest, at = self.history.newest, self.fleet_time()
        if newest is not None and at - newest.at < SAMPLE_SECONDS:
            return
        with suppress(DatabaseUnavailableError, *UNREACHABLE):
            with self.open_primary(asynchronous=asynchronous) as connection:
                at = self.fleet_time()
                measured = self.primary.measure(connection)
            self.history.note(Sample(at=at, position=measured.position))

    def why_late(self, server: Server, measured: Measured) -> str | None:
        """Return why a replica is too far behind for anybody; None: it is not."""
        if self.history.is_beside(measured):
            return "it follows another timeline than the primary"
        limit, order = self.max_lag_seconds, self.history.order
        if order is not None:
            limit = float("inf") if order.seconds is None else max(limit, order.seconds)
        lag = self.history.lag(measured.position, self.fleet_time())
        if limit == float("inf") or (lag is not None and lag <= limit):
            return None
        self.announce(ReplicaLagging(source=self.name, replica=server.name, lag_seconds=lag))
        return "nobody knows how far it is behind" if lag is None else f"it lags {lag:.1f} s"

    def may_fall_back(self) -> bool:
        """Tell whether one more read may go to the primary because no replica can answer it."""
        return self._share.allows()

    def count_read(self) -> None:
        """Count a read, for the share of those that fall back."""
        self._share.read()

    def count_fallback(self) -> None:
        """Count a read that the primary answers because no replica can."""
        self._share.fell_back()

    def fleet_time(self) -> float:
        """Return seconds since the epoch by the clock of all processes."""
        return self._pulse.time()

    def announce(self, event: Event) -> None:
        """Tell the listeners of *event*."""
        announce(event, self._listeners)

    def _server(
        self, name: str, address: Address, failures: int, options: dict[str, Any]
    ) -> Server:
        breaker = Breaker(
            f"database {self.name}: {name}",
            self._pulse,
            BreakerPolicy(failure_ratio=None, consecutive_failures=failures, half_open_probes=1),
            listeners=self._listeners,
        )
        return Server(
            name, address, breaker, clock=self.clock, fleet_time=self.fleet_time, **options
        )


def _restart(this: "weakref.ref[Servers]") -> None:
    databases = this()
    if databases is not None:
        databases._beside = None, None  # noqa: SLF001 - its thread is the parent's
        for server in (databases.primary, *databases.replicas):
            server.forget_connections()
