"""Ways for a process of the load to reach a primary and its replicas."""

import asyncio
import json
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import copy_context
from dataclasses import dataclass
from random import Random
from typing import Any, Protocol, TypeVar

from sqlalchemy import create_engine, func, literal_column, make_url, select, text
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from sqlalchemy.types import Integer, String, Text

from resilience.consistency import (
    ConsistentSession,
    Mark,
    Position,
    Token,
    current_session,
    in_session,
)
from resilience.consistency.shared import SharedPositions
from resilience.databases import Databases
from resilience.databases.last_read import LastRead
from resilience.pulse import Pulse
from resilience.store import Store
from resilience.store.fleet import StoreFleet

T = TypeVar("T")


class Base(DeclarativeBase):
    """All tables of the load."""


class Item(Base):
    """A key, and the names of all writes to it, each followed by a comma."""

    __tablename__ = "items"

    key: Mapped[str] = mapped_column(String(80), primary_key=True)
    trail: Mapped[str] = mapped_column(Text)


@dataclass(frozen=True, slots=True, kw_only=True)
class Urls:
    """Where the servers are: the databases as SQLAlchemy takes them, and the store."""

    primary: str
    replicas: tuple[str, ...]
    store: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a read brought.

    Attributes:
        trail: As in the table; empty if there is no such row.
        server: TCP port of the server that answered, as it said itself.
        marked: Whether the answer was said to be stale.
        lag: By how much at most; None: unknown.
    """

    trail: str
    server: str
    marked: bool = False
    lag: float | None = None


Carry = Callable[[], str]
"""Returns what a session takes along to the next process."""


class UnknownOutcomeError(Exception):
    """The commit was not answered: nobody knows whether there was one."""


class Router(Protocol):
    """Reads and writes on behalf of one session at a time."""

    def needed(self) -> str:
        """Return what the session has written and seen, as far as the router knows, for people."""
        ...

    def in_session(self, name: str, carried: str) -> AbstractContextManager[Carry]:
        """Go on with a session, with what it carried from the process before; empty: it begins."""
        ...

    def read(self, key: str) -> Answer:
        """Read one key."""
        ...

    def write(self, key: str, name: str) -> str:
        """Append the write *name* to a key, and return its trail.

        Raises:
            UnknownOutcomeError: It may or may not have been committed.
        """
        ...


PORTS = {
    "postgresql": func.inet_server_port(type_=Integer),
    "mariadb": literal_column("@@port", Integer),
}
"""By database: how a server says in the very statement that reads which one it is."""


def read_in(session: Session, key: str, database: str) -> tuple[str, str]:
    """Return a key's trail, and the port of the server that says so."""
    row = session.execute(select(Item.trail, PORTS[database]).where(Item.key == key)).one_or_none()
    return (row[0], str(row[1])) if row else ("", "")


def write_in(session: Session, key: str, name: str) -> str:
    """Append to a key's trail and commit, as an application would."""
    item = session.get(Item, key, with_for_update=True)
    if item is None:
        msg = f"there is no {key}"
        raise LookupError(msg)
    trail = item.trail = f"{item.trail}{name},"
    session.flush()
    try:
        session.commit()
    except Exception as error:
        raise UnknownOutcomeError from error
    return trail


class Naive:
    """Writes to the primary, and reads from any replica, whatever that has replayed."""

    def __init__(self, urls: Urls) -> None:
        """Connect to nothing yet."""
        self._primary = create_engine(urls.primary)
        self._database = self._primary.dialect.name
        self._replicas = [create_engine(url) for url in urls.replicas]
        self._random = Random()  # noqa: S311 - any replica

    def needed(self) -> str:
        """Nothing is known."""
        return ""

    @contextmanager
    def in_session(self, name: str, carried: str) -> Iterator[Carry]:
        """Sessions mean nothing here."""
        del name, carried
        yield lambda: ""

    def read(self, key: str) -> Answer:
        """Ask a replica."""
        with Session(self._random.choice(self._replicas)) as session:
            trail, server = read_in(session, key, self._database)
        return Answer(trail=trail, server=server)

    def write(self, key: str, name: str) -> str:
        """Ask the primary."""
        with Session(self._primary) as session:
            return write_in(session, key, name)


class Careful(Naive):
    """The simplest router that is right: it asks before and after each read, and never marks.

    A read goes to a replica that has replayed all that the session has written and seen, else to
    the primary. PostgreSQL only.
    """

    def __init__(self, urls: Urls) -> None:
        """Connect to nothing yet."""
        super().__init__(urls)
        self._known = 0

    @contextmanager
    def in_session(self, name: str, carried: str) -> Iterator[Carry]:
        """A session is how far it has seen the log."""
        del name
        self._known = json.loads(carried or "0")
        yield lambda: json.dumps(self._known)

    def read(self, key: str) -> Answer:
        """Ask a replica that knows enough, or the primary."""
        with Session(self._random.choice(self._replicas)) as session:
            if _replayed(session) >= self._known:
                trail, server = read_in(session, key, self._database)
                self._known = max(self._known, _replayed(session))
                return Answer(trail=trail, server=server)
        with Session(self._primary) as session:
            trail, server = read_in(session, key, self._database)
        self._see_primary()
        return Answer(trail=trail, server=server)

    def write(self, key: str, name: str) -> str:
        """Ask the primary, and then where the commit was."""
        trail = super().write(key, name)
        self._see_primary()
        return trail

    def _see_primary(self) -> None:
        with Session(self._primary) as session:
            written = session.scalar(text("SELECT pg_current_wal_insert_lsn() - '0/0'"))
        self._known = max(self._known, int(written or 0))


class Told(ConsistentSession):
    """A session that knows which marks its last read got: it keeps the worst of all alone."""

    def __init__(self, name: str, token: Token | None) -> None:
        """Begin with what the session carried."""
        super().__init__(name, token=token)
        self.told: list[Mark] = []

    def mark(self, mark: Mark) -> None:
        """Keep it, as every session does, and by itself."""
        super().mark(mark)
        self.told.append(mark)


class Routed:
    """The router under test."""

    fallback_share = 0.2

    def __init__(self, urls: Urls) -> None:
        """Connect to nothing yet."""
        store = Store(urls.store, namespace="load")
        self._database = make_url(urls.primary).get_backend_name()
        self._databases = Databases(
            primary=urls.primary,
            replicas=urls.replicas,
            pulse=Pulse(StoreFleet(store)),
            positions=SharedPositions(store),
            listeners=(),
            primary_fallback_share=self.fallback_share,
        )

    def needed(self) -> str:
        """Return the positions, by what they were found out, and what is pending."""
        session = current_session()
        if session is None:
            return ""
        pending = session.pending("default")
        parts = {
            "needed": session.needed("default"),
            "unknown": session.is_unknown("default"),
            "pending": isinstance(pending, LastRead) and (pending.server.name, pending.floor),
        }
        return json.dumps(
            {
                name: part.to_json() if isinstance(part, Position) else str(part)
                for name, part in parts.items()
            }
        )

    @contextmanager
    def in_session(self, name: str, carried: str) -> Iterator[Carry]:
        """Let the session's token travel as JSON."""
        token = Token.from_json(json.loads(carried)) if carried else None
        with in_session(Told(name, token)) as session:
            yield lambda: json.dumps(session.token().to_json())

    def read(self, key: str) -> Answer:
        """Ask whom it chooses."""
        consistent = current_session()
        if not isinstance(consistent, Told):
            msg = "the load reads in sessions"
            raise TypeError(msg)
        consistent.told.clear()
        trail, server = self._read(key)
        lags = [mark.lag_seconds for mark in consistent.told]
        known = [lag for lag in lags if lag is not None]
        lag = max(known) if known and len(known) == len(lags) else None
        return Answer(trail=trail, server=server, marked=bool(lags), lag=lag)

    def write(self, key: str, name: str) -> str:
        """Ask the primary."""
        with self._databases.Session() as session:
            return write_in(session, key, name)

    def _read(self, key: str) -> tuple[str, str]:
        with self._databases.Session() as session:
            return read_in(session, key, self._database)


class Thrifty(Routed):
    """The same, where hardly a read may go to the primary: most answers that must be are marked."""

    fallback_share = 0.01


class RoutedAsync(Routed):
    """The same on an event loop."""

    def __init__(self, urls: Urls) -> None:
        """Connect to nothing yet."""
        super().__init__(urls)
        self._loop = asyncio.Runner()

    @contextmanager
    def in_session(self, name: str, carried: str) -> Iterator[Carry]:
        """Ask for the token where an application would: in a coroutine."""

        async def carry() -> str:
            return carry_on()

        with super().in_session(name, carried) as carry_on:
            yield lambda: self._await(carry())

    def write(self, key: str, name: str) -> str:
        """Ask the primary."""

        async def write() -> str:
            async with self._databases.AsyncSession() as session:
                return await session.run_sync(write_in, key, name)

        return self._await(write())

    def _read(self, key: str) -> tuple[str, str]:
        async def read() -> tuple[str, str]:
            async with self._databases.AsyncSession() as session:
                return await session.run_sync(read_in, key, self._database)

        return self._await(read())

    def _await(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self._loop.run(coroutine, context=copy_context())


def _replayed(session: Session) -> int:
    return int(session.scalar(text("SELECT pg_last_wal_replay_lsn() - '0/0'")) or 0)
