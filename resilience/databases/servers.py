"""A primary and its replicas, and what the fleet knows of them."""

import asyncio
import os
import threading
import weakref
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

from sqlalchemy import URL, Connection, Engine
from sqlalchemy.exc import TimeoutError  # noqa: A004 - of the pool
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.util import greenlet_spawn

from resilience.breaker import Breaker, BreakerPolicy
from resilience.clock import Clock, SystemClock
from resilience.consistency import Position, Token
from resilience.consistency.errors import DatabaseUnavailableError
from resilience.consistency.shared import SharedPositions
from resilience.consistency.token import EVERYWHERE, TOKEN_SECONDS
from resilience.databases.lag import PrimaryHistory
from resilience.databases.measured import Measured
from resilience.databases.server import UNREACHABLE, Server, why_unreachable
from resilience.databases.share import FallbackShare
from resilience.errors import ConfigurationError, retry_after_of
from resilience.events import Event, Listener, announce, log_event
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
        max_lag_seconds: float = TOKEN_SECONDS,
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
                can answer, in (0, 1]; others are stale, and marked.
            max_lag_seconds: A replica farther behind answers only what is marked. Own writes are
                remembered for 30 s, so more than that would show users the state before them.
            clock: Where time comes from.
            **engine_options: Of `sqlalchemy.create_engine`, for all engines made of URLs.

        Raises:
            ConfigurationError: An address cannot be read, a number is out of range, or the database
                has no replicas.
        """
        where = f"databases {name!r}"
        for option, value in {
            "wait_seconds": wait_seconds,
            "position_cache_seconds": position_cache_seconds,
            "max_lag_seconds": max_lag_seconds,
        }.items():
            if not 0 <= value < float("inf"):
                msg = f"{where}: {option} must be 0 or more seconds, got {value!r}"
                raise ConfigurationError(msg)
        if not name or set(name) & NOT_IN_NAMES or len(name) > NAME_LENGTH_MAX:
            msg = f"{where}: a name has 1 to {NAME_LENGTH_MAX} characters, none of / and *"
            raise ConfigurationError(msg)
        if isinstance(replicas, str):
            msg = f"{where}: replicas must be a list of addresses, got one text"
            raise ConfigurationError(msg)
        self.name = name
        self.clock = clock or SystemClock()
        self.wait_seconds = wait_seconds
        self.position_cache_seconds = position_cache_seconds
        self.max_lag_seconds = max_lag_seconds
        self._pulse = pulse
        self._listeners = listeners
        self.share = FallbackShare(primary_fallback_share, self.clock, where=where)
        self._exchanging: tuple[threading.Thread | None, asyncio.Task[None] | None] = None, None
        self.history = PrimaryHistory(name, positions, self.clock)
        made = [
            Server(
                f"replica {number}" if number else "primary",
                address,
                where=where,
                clock=self.clock,
                fleet_time=self.fleet_time,
                **engine_options,
            )
            for number, address in enumerate((primary, *replicas))
        ]
        for server in made if replicas else ():
            if not server.has_positions:
                msg = (
                    f"{where}: {server.backend} has no positions, so it can have no "
                    "replicas here; use PostgreSQL or MariaDB, or a ConsistentReader"
                )
                raise ConfigurationError(msg)
        self.primary, *followers = made
        self.replicas = tuple(followers)
        for server in made:  # last, for a circuit has its name for ever
            server.breaker = self._breaker(server)
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
            measured = replica.connect_and_measure(asynchronous=False)
        except UNREACHABLE:
            return False
        refused = self.history.why_not(measured) or self.why_late(measured)
        return refused is None and measured.position.covers(needed)

    def measure_primary(self) -> Position | None:
        """Return where the primary is now; None: it does not answer.

        Raises:
            ConfigurationError: The database has no positions.
        """
        try:
            return self.primary.connect_and_measure(asynchronous=False).position
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
        known = primary.last_measured(connection)
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
        thread, task = self._exchanging
        if not self.replicas or (thread and thread.is_alive()) or (task and not task.done()):
            return
        if not self.history.due():
            return
        if asynchronous:
            self._exchanging = None, asyncio.get_running_loop().create_task(self._exchange_async())
            return
        thread = threading.Thread(target=self._exchange, name="primary-position", daemon=True)
        with suppress(RuntimeError):  # there may be no thread to be had
            thread.start()
            self._exchanging = thread, None

    def _exchange(self) -> None:
        self._sample(asynchronous=False)
        self.history.exchange()

    async def _exchange_async(self) -> None:
        await greenlet_spawn(self._sample, asynchronous=True)
        await asyncio.to_thread(self.history.exchange)

    def _sample(self, *, asynchronous: bool) -> None:
        """See where the primary is, unless somebody just did."""
        newest, at = self.history.newest, self.fleet_time()
        if newest is not None and at - newest.at < SAMPLE_SECONDS:
            return
        with suppress(DatabaseUnavailableError, *UNREACHABLE):
            with self.open_primary(asynchronous=asynchronous) as connection:
                at = self.fleet_time()
                measured = self.primary.measure(connection)
            self.history.note(at, measured.position)

    def why_late(self, measured: Measured) -> str | None:
        """Return why a replica may answer only what is marked, whoever asks; None: it may."""
        if self.history.is_beside(measured):
            return "it follows another timeline than the primary"
        limit, order = self.max_lag_seconds, self.history.order
        if order is not None:
            limit = float("inf") if order.seconds is None else max(limit, order.seconds)
        lag = self.history.lag(measured.position, self.fleet_time())
        if lag is None:
            return None if limit == float("inf") else "nobody knows how far it is behind"
        return None if lag <= limit else f"it lags {lag:.1f} s"

    def fleet_time(self) -> float:
        """Return seconds since the epoch by the clock of all processes."""
        return self._pulse.time()

    def announce(self, event: Event) -> None:
        """Tell the listeners of *event*."""
        announce(event, self._listeners)

    def _breaker(self, server: Server) -> Breaker:
        return Breaker(
            f"database {self.name}: {server.name}",
            self._pulse,
            BreakerPolicy(
                failure_ratio=None,
                consecutive_failures=PRIMARY_FAILURES
                if server is self.primary
                else REPLICA_FAILURES,
                half_open_probes=1,
                ignore=(TimeoutError,),  # all connections of this process are in use
            ),
            listeners=self._listeners,
        )


def _restart(this: "weakref.ref[Servers]") -> None:
    databases = this()
    if databases is not None:
        databases._exchanging = None, None  # noqa: SLF001 - its thread is the parent's
        for server in (databases.primary, *databases.replicas):
            server.forget_connections()
