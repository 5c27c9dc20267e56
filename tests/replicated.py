"""A PostgreSQL primary with streaming replicas, and the library's sessions on them."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import psycopg
from sqlalchemy import String, select, text
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from resilience.clock import SystemClock
from resilience.consistency.shared import SharedPositions
from resilience.databases import Databases
from resilience.databases.server import Server
from resilience.events import Event
from resilience.pulse import Pulse
from resilience.store import Store
from resilience.store.fleet import StoreFleet
from resilience.testing.postgres import PostgresProcess, running_postgres, running_replica
from resilience.testing.proxy import TcpProxy
from resilience.testing.waiting import wait_until

SECONDS = 120.0


class Base(DeclarativeBase):
    """The tables of the tests."""


class Note(Base):
    """A row with a body that changes."""

    __tablename__ = "notes"

    id: Mapped[int] = mapped_column(primary_key=True)
    body: Mapped[str] = mapped_column(String(50))


@dataclass(frozen=True, slots=True)
class Stage:
    """A primary, the proxy that clients reach it through, and replicas with their links to it."""

    primary: PostgresProcess
    front: TcpProxy
    links: list[TcpProxy]
    replicas: list[PostgresProcess]
    events: list[Event] = field(default_factory=list)
    made: list[Databases] = field(default_factory=list)

    @property
    def primary_url(self) -> str:
        """Where clients reach the primary."""
        return self.primary.url.replace(str(self.primary.port), str(self.front.port))

    def databases(
        self,
        store: Store | None = None,
        **options: Any,  # noqa: ANN401 - of `Databases`
    ) -> Databases:
        """Return the databases of a process that has just started, with *store* if it is given."""
        options.setdefault("primary", self.primary_url)
        options.setdefault("replicas", [replica.url for replica in self.replicas])
        made = Databases(
            pulse=Pulse(None if store is None else StoreFleet(store)),
            positions=None if store is None else SharedPositions(store),
            listeners=[self.events.append],
            **options,
        )
        self.made.append(made)
        return made

    def close(self) -> None:
        """Close the databases that tests left open, and forget their events."""
        for databases in self.made:
            databases.close()
        self.made.clear()
        self.events.clear()

    def level(self) -> None:
        """Wait until all replicas have replayed what the primary has."""
        lsn = self.primary.flushed_lsn()
        for replica in self.replicas:
            wait_until(lambda one=replica: one.has_replayed(lsn), SECONDS, "the replica is level")

    def await_lag(self, databases: Databases) -> None:
        """Wait until *databases* knows the lag of its replicas, which must be level.

        From then on it knows their lag even while they stall: it has seen the primary at the
        position where they stopped.
        """
        for replica in databases.replicas:

            def is_known(replica: Server = replica) -> bool:
                databases.keep_up(asynchronous=False)
                measured = replica.connect_and_measure(asynchronous=False)
                return databases.history.lag(measured.position, databases.fleet_time()) is not None

            wait_until(is_known, SECONDS, f"the lag of {replica.name} is known")

    @contextmanager
    def stalled(self, *numbers: int) -> Iterator[None]:
        """Hold back what the replicas with these *numbers* receive during the block; none: all."""
        links = [self.links[number] for number in numbers or range(len(self.links))]
        for link in links:
            link.stall()
        try:
            yield
        finally:
            for link in links:
                link.resume()
            self.level()


@contextmanager
def running_stage(*, replicas: int = 1) -> Iterator[Stage]:
    """Run a stage whose servers have the table of notes, and are level."""
    with ExitStack() as stack:
        primary = stack.enter_context(running_postgres())
        with psycopg.connect(primary.url) as connection:
            connection.execute("CREATE TABLE notes (id serial PRIMARY KEY, body varchar(50))")
        front = stack.enter_context(_proxy(primary.port))
        links = [stack.enter_context(_proxy(primary.port)) for _ in range(replicas)]
        followers = [
            stack.enter_context(running_replica(primary, through=link.port)) for link in links
        ]
        stage = Stage(primary, front, links, list(followers))
        stage.level()
        yield stage
        stage.close()


@contextmanager
def _proxy(port: int) -> Iterator[TcpProxy]:
    proxy = TcpProxy(port)
    try:
        yield proxy
    finally:
        proxy.close()


def write(
    databases: Databases,
    body: str,
    **options: Any,  # noqa: ANN401 - of `RoutingSession`
) -> int:
    """Commit a note, and return its id."""
    with databases.Session(**options) as session, session.begin():
        note = Note(body=body)
        session.add(note)
        session.flush()
        return note.id


def read(
    databases: Databases,
    note: int,
    **options: Any,  # noqa: ANN401 - of `RoutingSession`
) -> tuple[str | None, str]:
    """Return a note's body, or None, and which server answered: `primary` or `replica`."""
    with databases.Session(**options) as session:
        return answered(session, note)


IS_REPLICA = text("pg_is_in_recovery() AS replica")


def answered(
    session: Session,
    note: int,
    **arguments: Any,  # noqa: ANN401 - of `Session.get_bind`
) -> tuple[str | None, str]:
    """Read a note in *session*; return the same as `read`."""
    query = select(Note.body, IS_REPLICA).where(Note.id == note)
    row = session.execute(query, bind_arguments=arguments).first()
    server = row or session.execute(select(Note.id, IS_REPLICA), bind_arguments=arguments).first()
    return row and row[0], "replica" if server is None or server[1] else "primary"


def timed(call: Callable[[], Any]) -> float:
    """Return how many seconds *call* takes."""
    began = SystemClock.monotonic()
    call()
    return SystemClock.monotonic() - began
