"""A SQLAlchemy session whose reads go to a replica and all else to the primary."""

import asyncio
from collections.abc import Collection
from typing import Any, Final

from sqlalchemy import Connection, event
from sqlalchemy.orm import Session, SessionTransaction
from sqlalchemy.sql.selectable import SelectBase
from sqlalchemy.util import await_only

from resilience.consistency import Position, current_session
from resilience.consistency.session import ANY_KEY, PRIMARY, ConsistentSession
from resilience.databases.choosing import Choice
from resilience.databases.last_read import LastRead
from resilience.databases.server import UNREACHABLE, Server
from resilience.databases.servers import Servers
from resilience.errors import ConfigurationError

KEY_LENGTH_MAX: Final = 150


class RoutingSession(Session):
    """A session of `Databases`.

    The first read of a transaction chooses who answers all of them, and is checked on the
    connection that then reads; should a later read need more, the primary answers it. What flushes,
    inserts, updates, deletes, locks rows or is a text goes to the primary, and after it the rest of
    the transaction. After a commit the primary is asked where that was.
    """

    def __init__(
        self,
        *,
        databases: Servers,
        asynchronous: bool = False,
        using: str | None = None,
        keys: Collection[str] = (),
        **options: Any,  # noqa: ANN401 - as SQLAlchemy's
    ) -> None:
        """Make a session; `Databases.Session` and `AsyncSession` do.

        Args:
            databases: Where it reads and writes.
            asynchronous: Whether an `AsyncSession` drives it.
            using: `primary`: its reads go there, too.
            keys: What it writes, by names of the app's own, each up to 150 characters. A read with
                `bind_arguments={"keys": […]}` then waits for writes of its keys only, and for those
                that named none.
            **options: As SQLAlchemy's.

        Raises:
            ConfigurationError: *using* is something else, or a key is too long.
        """
        if using or keys:
            _check(using, keys)
        super().__init__(**options)
        self._databases = databases
        self._asynchronous = asynchronous
        self._using = using
        self._keys = tuple(keys) or (ANY_KEY,)
        self._own: ConsistentSession | None = None
        self._forget()

    def _forget(self) -> None:
        self._consistent: ConsistentSession | None = None
        self._writer: Connection | None = None
        self._reader: tuple[Server, Connection, Position] | None = None
        self._written = self._committing = False

    def _whose(self) -> ConsistentSession:
        """Return the session in which the first statement of the transaction ran.

        Without any, this SQLAlchemy session at least sees what it has written itself.
        """
        if self._consistent is None:
            self._consistent = current_session()
        if self._consistent is not None:
            return self._consistent
        if self._own is None:
            self._own = ConsistentSession()
        return self._own

    def get_bind(
        self,
        mapper: Any = None,  # noqa: ANN401 - as SQLAlchemy's
        *,
        clause: Any = None,  # noqa: ANN401 - as SQLAlchemy's
        bind: Any = None,  # noqa: ANN401 - as SQLAlchemy's
        using: str | None = None,
        keys: Collection[str] = (),
        **_: Any,  # noqa: ANN401 - as SQLAlchemy's
    ) -> Any:  # noqa: ANN401 - an engine or a connection
        """Return the connection for a statement.

        Raises:
            DatabaseUnavailableError: Nobody can answer it.
        """
        del mapper
        if bind is not None:
            return bind
        if using or keys:
            _check(using, keys)
        session = self._whose()
        writes = self._flushing or not _only_reads(clause)
        self._written = self._written or writes
        if self._written:
            connection = self._primary()
        elif PRIMARY in {using, self._using, session.using}:
            connection = self._primary(session)
        else:
            return self._read(session, tuple(keys))
        # A text shows something, too.
        self._note_read(session, self._databases.primary, connection)
        return connection

    def _primary(self, reads: ConsistentSession | None = None) -> Connection:
        """Return the connection to the primary; if *reads* goes there, what it shows is checked."""
        if self._writer is None:
            if self._reader is not None and self._reader[0] is self._databases.primary:
                self._writer = self._reader[1]
            elif reads is not None:
                choice = Choice(self._databases, reads, (), asynchronous=self._asynchronous)
                self._writer = choice.primary()
            else:
                self._writer = self._databases.open_primary(asynchronous=self._asynchronous)
        return self._writer

    def _read(self, session: ConsistentSession, keys: tuple[str, ...]) -> Connection:
        databases = self._databases
        choice = Choice(databases, session, keys, asynchronous=self._asynchronous)
        if self._reader is None:
            databases.share.read()
            self._reader = (*choice.choose(), choice.needed)
        server, connection, checked = self._reader
        primary, before = databases.primary, session.pending(databases.name)
        lost = False
        if server is not primary and isinstance(before, LastRead) and before.server is not server:
            # Another session of the same user has read elsewhere meanwhile.
            choice.find_out(server)
            lost = choice.is_unknown
        if server is not primary and (lost or not checked.covers(choice.needed)):
            # Something was written meanwhile, or other keys are read than before.
            server, connection = primary, self._primary(session)
        self._note_read(session, server, connection)
        return connection

    def _note_read(
        self, session: ConsistentSession, server: Server, connection: Connection
    ) -> None:
        databases = self._databases
        if not databases.replicas:
            return
        last = LastRead(databases, session, server, connection, asynchronous=self._asynchronous)
        before = session.pending(databases.name)
        if isinstance(before, LastRead):
            known = server.last_measured(connection)
            if known is not None and before.precedes(server, known[0], databases.primary):
                last.floor = last.floor.merged(before.floor)
            else:
                session.note(databases.name, before())
        session.note_read(databases.name, last)

    def _ended(self) -> None:
        """Give the connections of a transaction back."""
        writer, reader, session = self._writer, self._reader, self._whose()
        if self._written and writer is not None:
            if self._committing and writer.invalidated:
                self._note_lost(session)  # committed or not: nobody knows
            elif _commits_each_statement(writer):
                self._note_written(session, writer)
        self._forget()
        if writer is not None:
            writer.close()
        if reader is not None and reader[1] is not writer:
            reader[1].close()

    def _committed(self) -> None:
        """Note where the primary was when it had committed."""
        self._committing = False
        if self._written and self._writer is not None:
            self._note_written(self._whose(), self._writer)
            self._written = False

    def _note_written(self, session: ConsistentSession, writer: Connection) -> None:
        databases = self._databases
        if not databases.replicas:
            return
        databases.keep_up(asynchronous=self._asynchronous)
        at = databases.fleet_time()
        try:
            measured = databases.primary.measure(writer)
        except UNREACHABLE:
            self._note_lost(session)
            return
        databases.history.note(at, measured.position)
        session.note(databases.name, measured.position, self._keys)
        before = session.pending(databases.name)
        if isinstance(before, LastRead) and before.precedes(
            databases.primary, measured, databases.primary
        ):
            session.note_read(databases.name, None)
        if self._asynchronous:
            await_only(asyncio.to_thread(session.written))
        else:
            session.written()

    def _note_lost(self, session: ConsistentSession) -> None:
        """Note a write whose position is not known, but on which line it was."""
        databases = self._databases
        if databases.primary.has_positions:
            if databases.primary.highest is not None:
                position = databases.primary.highest.position
                session.note(databases.name, position, self._keys)
            session.note_unknown(databases.name, databases.fleet_time())


def _commits_each_statement(connection: Connection) -> bool:
    if connection.closed or connection.invalidated:
        return False
    driver: Any = connection.connection.dbapi_connection
    # In PyMySQL and its kin `autocommit` is what sets it.
    asks = getattr(driver, "get_autocommit", None)
    return (asks() if callable(asks) else getattr(driver, "autocommit", False)) is True


def _check(using: str | None, keys: Collection[str]) -> None:
    if using not in {None, PRIMARY}:
        msg = f"using must be 'primary' or None, got {using!r}"
        raise ConfigurationError(msg)
    if isinstance(keys, str) or any(not 0 < len(key) <= KEY_LENGTH_MAX for key in keys):
        msg = f"keys must be a list of names of 1 to {KEY_LENGTH_MAX} characters, got {keys!r:.200}"
        raise ConfigurationError(msg)


def _only_reads(clause: Any) -> bool:  # noqa: ANN401 - any statement
    """Tell whether a statement changes nothing and locks nothing, as far as it shows."""
    return isinstance(clause, SelectBase) and getattr(clause, "_for_update_arg", None) is None


@event.listens_for(RoutingSession, "before_commit")
def _before_commit(session: RoutingSession) -> None:
    if not session.in_nested_transaction():
        session._committing = True  # noqa: SLF001 - a part of the class


@event.listens_for(RoutingSession, "after_commit")
def _after_commit(session: RoutingSession) -> None:
    if not session.in_nested_transaction():
        session._committed()  # noqa: SLF001 - as above


@event.listens_for(RoutingSession, "after_transaction_end")
def _after_transaction_end(session: RoutingSession, transaction: SessionTransaction) -> None:
    if transaction.parent is None:
        session._ended()  # noqa: SLF001 - as above
