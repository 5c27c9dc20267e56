"""What a replica is taken to show that has followed a primary which nobody has seen yet."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import psycopg
import pytest
from sqlalchemy.exc import OperationalError

from resilience.consistency import ConsistentSession, in_session
from resilience.consistency.errors import DatabaseUnavailableError
from resilience.databases import Databases
from resilience.testing.waiting import wait_until
from tests.replicated import SECONDS, Stage, read, running_stage, write

ROLES = ("app", "postgres")
"""Who may see little of how a replica is connected, and who sees all of it."""


@pytest.fixture
def stage() -> Iterator[Stage]:
    """A stage of its own, on which an ordinary role may read and write."""
    with running_stage(replicas=2) as stage:
        with psycopg.connect(stage.primary.url, autocommit=True) as connection:
            connection.execute("CREATE ROLE app LOGIN")
            connection.execute("GRANT ALL ON ALL TABLES IN SCHEMA public TO app")
            connection.execute("GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO app")
        stage.level()
        yield stage


@dataclass(slots=True)
class Reader:
    """A session in a process of its own."""

    databases: Databases
    session: ConsistentSession
    seen: int
    mine: int = 0

    @classmethod
    def of(cls, stage: Stage, role: str) -> "Reader":
        """Let a session see a note, as *role*."""
        urls = [url.replace("postgres@", f"{role}@") for url in (one.url for one in stage.replicas)]
        primary = stage.primary_url.replace("postgres@", f"{role}@")
        databases = stage.databases(primary=primary, replicas=urls)
        seen = write(databases, "there")
        stage.level()
        reader = cls(databases, ConsistentSession("ann"), seen)
        with in_session(reader.session):
            assert read(databases, seen)[0] == "there"
        return reader

    def write(self) -> int:
        """Write a note, and return the position after it."""
        with in_session(self.session):
            self.mine = write(self.databases, "mine")
        lines = self.session.token().positions["default"].lines
        return max(number for number, _ in lines.values())

    def notice_the_end(self) -> None:
        """Find out that the primary is gone, in another session: whose write fails is marked."""
        # The second error if the connection was idle for so long that it is tested before its use.
        with (
            in_session(ConsistentSession()),
            pytest.raises((OperationalError, DatabaseUnavailableError)),
        ):
            write(self.databases, "on the connection that was there")

    def read(self) -> tuple[str | None, str]:
        """Read the note that the session has written."""
        with in_session(self.session):
            return read(self.databases, self.mine)


def lose_writes(stage: Stage, readers: Collection[Reader]) -> None:
    """Let a write of each session be lost with the primary, and the replicas pass its position.

    The first has taken over, but clients are not led to it yet; the second follows it.
    """
    first, second = stage.replicas
    for link in stage.links:
        link.stall()
    reached = max(reader.write() for reader in readers)
    stage.primary.kill()
    for reader in readers:
        reader.notice_the_end()
    stage.links[0].cut()
    first.promote()  # type: ignore[attr-defined] # it is a replica
    with psycopg.connect(first.url, autocommit=True) as connection:
        slot = f"replica_{second.port}"
        connection.execute("SELECT pg_create_physical_replication_slot(%s, true)", [slot])
        stage.links[1].lead_to(first.port)
        stage.links[1].cut()
        stage.links[1].resume()
        passed = "SELECT pg_current_wal_flush_lsn() - '0/0' > %s"
        while connection.execute(passed, [reached]).fetchone() == (False,):
            connection.execute("INSERT INTO notes (body) VALUES ('of another')")
    lsn = first.flushed_lsn()
    wait_until(lambda: second.has_replayed(lsn), SECONDS, "it follows")  # type: ignore[attr-defined]


def has_receiver(stage: Stage) -> bool:
    """Tell whether the second replica is connected to its primary."""
    with psycopg.connect(stage.replicas[1].url) as connection:
        return connection.execute("SELECT FROM pg_stat_wal_receiver").fetchone() is not None


@pytest.mark.long
def test_answer_without_the_own_write_is_marked_when_the_replica_has_passed_its_position_elsewhere(
    stage: Stage,
) -> None:
    """A number of another timeline says nothing, whether or not the replica can tell that it is.

    It cannot tell a role that may not see its connection, nor anybody while it is cut off.
    """
    streaming, cut_off = ([Reader.of(stage, role) for role in ROLES] for _ in range(2))
    lose_writes(stage, [*streaming, *cut_off])
    answers = [reader.read() for reader in streaming]
    stage.links[1].stall()
    stage.links[1].cut()
    wait_until(lambda: not has_receiver(stage), SECONDS, "its receiver has ended")
    answers += [reader.read() for reader in cut_off]

    assert answers == [(None, "replica")] * 4
    assert [bool(reader.session.marks) for reader in (*streaming, *cut_off)] == [True] * 4
