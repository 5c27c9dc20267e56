"""What it costs to see one's own writes: a routed read beside a plain one, a recent write.

Both sides of the ratio read the same row of the same replica by the same query, in alternation, on
the same connection: two connections of one server differ by up to a fifth, as each has a process
of its own. A routed read asks its connection how far the replica is, once in
`position_cache_seconds`; reads that do are counted and timed apart.
"""

import statistics
from collections.abc import Iterator
from contextlib import ExitStack
from time import perf_counter

import psycopg
from sqlalchemy import select
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, sessionmaker

from benchmarks import consistency_reader
from benchmarks.figure import Figure
from resilience.consistency import ConsistentSession, in_session
from resilience.databases import Databases
from resilience.pulse import Pulse
from resilience.testing.postgres import running_postgres, running_replica
from resilience.testing.waiting import wait_until

READ_RATIO = 1.1
CACHE_SECONDS = 0.05
LEVEL_SECONDS = 10.0


class Base(DeclarativeBase):
    """The tables of the benchmark."""


class Note(Base):
    """A row that is read."""

    __tablename__ = "notes"

    id: Mapped[int] = mapped_column(primary_key=True)
    body: Mapped[str]


def run(*, quick: bool) -> Iterator[Figure]:
    """Measure; *quick* takes fewer rounds."""
    yield from consistency_reader.run(quick=quick)
    rounds = 3_000 if quick else 20_000
    with ExitStack() as stack:
        primary = stack.enter_context(running_postgres())
        with psycopg.connect(primary.url) as connection:
            connection.execute("CREATE TABLE notes (id int PRIMARY KEY, body text)")
        replica = stack.enter_context(running_replica(primary))
        databases = Databases(
            primary=primary.url,
            replicas=[replica.url],
            pulse=Pulse(None),
            listeners=(),
            position_cache_seconds=CACHE_SECONDS,
        )
        stack.callback(databases.close)
        with in_session(ConsistentSession()):
            with databases.Session() as session, session.begin():
                session.add(Note(id=1, body="read"))
            lsn = primary.flushed_lsn()
            wait_until(lambda: replica.has_replayed(lsn), LEVEL_SECONDS, "the replica is level")
            yield from _routed(databases, rounds)


def _routed(databases: Databases, rounds: int) -> Iterator[Figure]:
    query, server = select(Note.body).where(Note.id == 1), databases.replicas[0]
    plain = sessionmaker(server.engine(asynchronous=False))
    asked = 0
    measure = server.measure

    def counted(*arguments: object, **options: object) -> object:
        nonlocal asked
        asked += 1
        return measure(*arguments, **options)  # type: ignore[arg-type]

    server.measure = counted  # type: ignore[method-assign, assignment]

    def read(make: object) -> float:
        began = perf_counter()
        with make() as session:  # type: ignore[operator]
            session.execute(query).all()
        return perf_counter() - began

    for _ in range(200):
        read(plain)
        read(databases.Session)
    ours: list[float] = []
    asking: list[float] = []
    theirs: list[float] = []
    began, asked = perf_counter(), 0
    for _ in range(rounds):
        theirs.append(read(plain))
        before = asked
        seconds = read(databases.Session)
        (ours if asked == before else asking).append(seconds)
    elapsed = perf_counter() - began
    sides = {
        "ours_us": round(1e6 * statistics.median(ours), 1),
        "plain_us": round(1e6 * statistics.median(theirs), 1),
        "asking_us": round(1e6 * statistics.median(asking), 1) if asking else None,
        "reads": rounds,
    }
    ratio = statistics.median(ours) / statistics.median(theirs)
    yield Figure(name="routed_read", value=ratio, unit="ratio", bound=READ_RATIO, sides=sides)
    yield Figure(
        name="position_checks",
        value=asked / (elapsed / CACHE_SECONDS + 1),
        unit="checks per cache time",
        bound=1.0,
        sides={"checks": asked, "seconds": round(elapsed, 2)},
    )
