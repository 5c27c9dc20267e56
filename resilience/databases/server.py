"""One database server: its engines, its circuit, and how far it was when it was last asked."""

import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final

from sqlalchemy import URL, Connection, Engine, create_engine, event, exc, make_url
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry
from sqlalchemy.util import await_only

from resilience.breaker import Breaker
from resilience.budget import Cut
from resilience.clock import Clock
from resilience.consistency import Position
from resilience.databases import mariadb, postgres
from resilience.databases.answering import answered_within
from resilience.databases.measured import Measured
from resilience.errors import (
    CircuitOpenError,
    ConfigurationError,
    TooManyAbandonedError,
    text_of,
)
from resilience.text import hide_in_text

KINDS: Final = {"postgresql": postgres, "mysql": mariadb, "mariadb": mariadb}
DRIVERS: Final = {"postgresql": "psycopg", "mysql": "pymysql", "mariadb": "pymysql"}
CONNECT_SECONDS: Final = 2
POOL_SECONDS: Final = 1.0
"""How long a call waits for a connection when all of a server's are in use."""
UNREACHABLE: Final = (exc.DBAPIError, exc.TimeoutError, CircuitOpenError, OSError)
"""What ends a call of a server that does not answer, or is not asked."""
FRESH_SECONDS: Final = 1.0
USED: Final = "resilience_used"
"""Where a pooled connection keeps when it was used last."""
MEASURED: Final = "resilience_measured"
"""Where a pooled connection keeps what its server said last, and when."""


class Server:
    """A server and what this process knows of it. Safe with threads, gevent, fork and event loops.

    Attributes:
        name: For people: `primary`, `replica 1`, ….
        breaker: Refuses to connect while the server is unreachable, for the whole fleet.
        highest: The farthest that it was ever seen at in this process.
    """

    breaker: Breaker

    def __init__(
        self,
        name: str,
        address: str | URL | Engine | AsyncEngine,
        *,
        where: str,
        clock: Clock,
        fleet_time: Callable[[], float],
        **options: Any,  # noqa: ANN401 - SQLAlchemy's
    ) -> None:
        """Prepare; nothing is connected yet.

        Args:
            name: For people.
            address: A URL, or an engine, which then serves sessions of its own kind only.
            where: Whose server it is, for errors.
            clock: Where time comes from.
            fleet_time: Returns seconds since the epoch by the clock of all processes.
            **options: Of the engines that are made of a URL, as of `create_engine`.

        Raises:
            ConfigurationError: *address* is neither, or an option is unknown.
        """
        self.name = name
        self._where = f"{where}, {name}"
        self._clock = clock
        self._fleet_time = fleet_time
        self.highest: Measured | None = None
        self._options = options
        self._engines: dict[bool, Engine] = {}
        self._making = threading.Lock()
        self._url: URL | None = None
        if isinstance(address, AsyncEngine):
            self._engines[True] = self._watched(address.sync_engine)
        elif isinstance(address, Engine):
            self._engines[False] = self._watched(address)
        else:
            self._url = _read(address, self._where)
        if self._url is not None:
            self._engines[False] = self._watched(self._made(self._url, asynchronous=False))
        url = self._url or next(iter(self._engines.values())).url
        self.backend = url.get_backend_name()
        self._measure: Callable[[Any, float], Measured] | None = getattr(
            KINDS.get(self.backend), "measure", None
        )

    @property
    def has_positions(self) -> bool:
        """Whether the database can say how far it is; SQLite cannot."""
        return self._measure is not None

    def engine(self, *, asynchronous: bool) -> Engine:
        """Return the engine for sessions of one kind.

        Raises:
            ConfigurationError: The server was given as an engine of the other kind, or its URL
                names a driver of the other kind.
        """
        made = self._engines.get(asynchronous)
        if made is not None:
            return made
        if self._url is None:
            kind = "an AsyncSession" if asynchronous else "a Session"
            msg = f"{self._where}: its engine cannot serve {kind}; give its URL instead"
            raise ConfigurationError(msg)
        with self._making:
            if asynchronous not in self._engines:
                engine = self._made(self._url, asynchronous=asynchronous)
                self._engines[asynchronous] = self._watched(engine)
        return self._engines[asynchronous]

    def connect(self, *, asynchronous: bool) -> Connection:
        """Return a connection that is in no transaction, from the pool or new.

        A pooled connection that was idle for a second is tested before it is returned.

        Raises:
            CircuitOpenError: The server was unreachable a moment ago.
            sqlalchemy.exc.SQLAlchemyError: It cannot be reached, or all connections are in use.
        """
        connection = self._connect(asynchronous=asynchronous)
        used = connection.info.get(USED)
        if used is None or self._clock.monotonic() - used < FRESH_SECONDS:
            return connection
        try:
            if self.has_positions:
                self.measure(connection, counts=False)
        except exc.OperationalError as error:
            connection.close()
            if isinstance(error.orig, TimeoutError) and self.highest and self.highest.is_replica:
                self.fail(error)  # another one answers sooner than a new connection would
                raise
            return self._connect(asynchronous=asynchronous)
        except BaseException:
            connection.close()
            raise
        return connection

    def _connect(self, *, asynchronous: bool) -> Connection:
        connect = self.engine(asynchronous=asynchronous).connect
        if not asynchronous:
            return self.breaker.call(connect)
        await_only(self.breaker.__aenter__())
        try:
            connection = connect()
        except BaseException as error:
            await_only(self.breaker.__aexit__(type(error), error, None))
            raise
        await_only(self.breaker.__aexit__(None, None, None))
        return connection

    def last_measured(self, connection: Connection) -> tuple[Measured, float] | None:
        """Return what the server last said on *connection*, and when, monotonic; None: nothing."""
        found: tuple[Measured, float] | None = connection.info.get(MEASURED)
        return found

    def measure(self, connection: Connection, *, counts: bool = True) -> Measured:
        """Ask the server on *connection* how far it is: one round trip, and no snapshot.

        Args:
            connection: In no transaction, or in one that it does not harm; see `can_ask`.
            counts: Whether a failure counts against the circuit; not if the connection was idle
                for long, which may be the reason.

        Raises:
            ConfigurationError: The database cannot say that.
            sqlalchemy.exc.DBAPIError: It did not answer.
        """
        if self._measure is None:
            msg = (
                f"{self._where}: {self.backend} has no positions, and no replicas; "
                "use PostgreSQL or MariaDB, or a ConsistentReader"
            )
            raise ConfigurationError(msg)
        ask, now, known, before = (
            self._measure,
            self._clock.monotonic(),
            self._fleet_time(),
            self.highest,
        )
        try:
            measured: Measured = self._run(connection, lambda cursor: ask(cursor, known))
        except exc.OperationalError as error:
            if counts:
                self.fail(error)
            raise
        except Cut:
            self.fail(TimeoutError(f"{self.name} did not say in time how far it is"))
            raise
        if before is not None and measured.is_before(before):
            measured = replace(measured, went_back=True)
        else:
            if before is not None and measured.continues(before):
                measured = replace(measured, position=measured.position.merged(before.position))
            if self.highest is None or not measured.is_before(self.highest):
                self.highest = measured
        connection.info[MEASURED] = (measured, now)
        return measured

    def can_ask(self, connection: Connection) -> bool:
        """Tell whether *connection* is still in use, and can be asked in its transaction."""
        if connection.closed or connection.invalidated:
            return False
        is_quiet = getattr(KINDS[self.backend], "is_quiet", None)
        return is_quiet is not None and is_quiet(connection.connection.driver_connection)

    def connect_and_measure(self, *, asynchronous: bool) -> Measured:
        """Connect and ask the server how far it is; raises as `connect` and `measure`."""
        with self.connect(asynchronous=asynchronous) as connection:
            return self.measure(connection)

    def wait(self, connection: Connection, position: Position, seconds: float) -> bool:
        """Let the server itself wait until it has replayed *position*; False: it cannot do that."""
        version = connection.dialect.server_version_info or ()
        wait = KINDS[self.backend].wait

        def ask(cursor: Any) -> bool:  # noqa: ANN401 - of any driver
            return bool(wait(cursor, version, position, seconds))

        return bool(self._run(connection, ask, seconds))

    def fail(self, error: BaseException) -> None:
        """Count a connection that broke while it was used."""

        def broken() -> None:
            raise error

        with suppress(Exception):  # it is counted, or the circuit is open
            self.breaker.call(broken)

    def close(self, *, asynchronous: bool) -> None:
        """Close the connections of one kind of session that are not in use."""
        if asynchronous in self._engines:
            self._engines[asynchronous].dispose()

    def forget_connections(self) -> None:
        """Leave those that there are to the parent of a forked process."""
        self._making = threading.Lock()
        for engine in self._engines.values():
            engine.dispose(close=False)

    def _run(self, connection: Connection, ask: Callable[[Any], Any], waits: float = 0.0) -> Any:  # noqa: ANN401 - what *ask* returns
        """Return `ask(cursor)`, without beginning a transaction, which would fix a snapshot.

        A server that says nothing for longer than it *waits* itself counts as unreachable.
        """
        dialect, pooled = connection.dialect, connection.connection
        driver: Any = pooled.dbapi_connection
        in_steps = self.backend == "postgresql" and not connection.in_transaction()
        try:
            if in_steps:
                dialect.set_isolation_level(driver, "AUTOCOMMIT")
            cursor = pooled.cursor()
            try:
                answer = answered_within(waits, connection, lambda: ask(cursor))
            finally:
                cursor.close()
            if in_steps:  # after an error the connection is not used again
                dialect.reset_isolation_level(driver)
        except (dialect.loaded_dbapi.Error, TimeoutError, TooManyAbandonedError) as error:
            connection.invalidate(error)
            connection.engine.dispose()  # what else is in the pool is as old
            raise exc.OperationalError(None, None, error) from error
        except BaseException as error:  # cut between question and answer
            connection.invalidate(error)
            raise
        return answer

    def _made(self, url: URL, *, asynchronous: bool) -> Engine:
        options = _safe(url.get_backend_name(), self._options)
        try:
            if asynchronous:
                return create_async_engine(url, **options).sync_engine
            return create_engine(url, **options)
        except (TypeError, ImportError, exc.SQLAlchemyError) as error:
            why = hide_in_text(text_of(error))
            msg = f"{self._where}: no engine can be made for {url.drivername}: {why}"
            raise ConfigurationError(msg) from error

    def _watched(self, engine: Engine) -> Engine:
        @event.listens_for(engine, "handle_error")
        def note(context: ExceptionContext) -> None:
            # One that cannot connect is counted where it was tried.
            if context.is_disconnect and context.connection is not None:
                self.fail(context.original_exception)

        @event.listens_for(engine, "checkin")
        def used(_: object, record: ConnectionPoolEntry) -> None:
            record.info[USED] = self._clock.monotonic()

        return engine


def why_unreachable(error: BaseException) -> str:
    """Return what an error says in its first line, without the statement that it ended."""
    lines = text_of(getattr(error, "orig", None) or error).splitlines()
    return hide_in_text(lines[0]) if lines else type(error).__name__


def _read(address: str | URL, where: str) -> URL:
    try:
        url = make_url(address)
    except exc.ArgumentError as error:
        # The text is not repeated: it may hold a password.
        msg = f"{where}: give a URL such as postgresql+psycopg://host/name, or an engine"
        raise ConfigurationError(msg) from error
    driver = DRIVERS.get(url.get_backend_name())
    if driver is not None and "+" not in url.drivername:
        url = url.set(drivername=f"{url.drivername}+{driver}")
    return url


def _safe(backend: str, options: dict[str, Any]) -> dict[str, Any]:
    """Return *options* with waits that end, where they say nothing else."""
    if backend not in KINDS:
        return options
    connect: dict[str, Any] = {"connect_timeout": CONNECT_SECONDS}
    if backend == "postgresql":
        connect["tcp_user_timeout"] = 1000 * CONNECT_SECONDS
    defaults: dict[str, Any] = {}
    if "poolclass" not in options:
        defaults = {"pool_timeout": POOL_SECONDS, "pool_use_lifo": True}
    return {**defaults, **options, "connect_args": {**connect, **options.get("connect_args", {})}}
