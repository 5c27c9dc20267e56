"""What a replica is taken to show that has followed a primary which nobody has seen yet."""

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest
from sqlalchemy.exc import OperationalError

from resilience.consistency import ConsistentSession, in_session
from resilience.consistency.errors import DatabaseUnavailableError
from resilience.databases import Databases
from resilience.testing.waiting import wait_until
from tests.replicated import SECONDS, Stage, read, running_stage, write

APP = "app"


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


def databases_of(stage: Stage, role: str) -> Databases:
    """Return the databases as *role* reaches them."""
    urls = [url.replace("postgres@", f"{role}@") for url in (one.url for one in stage.replicas)]
    return stage.databases(
        primary=stage.primary_url.replace("postgres@", f"{role}@"), replicas=urls
    )


@contextmanager
def lost_write(stage: Stage, databases: Databases) -> Iterator[tuple[ConsistentSession, int]]:
    """Let a session's write be lost with the primary, and the replicas pass its position.

    The first has taken over, but clients are not led to it yet; the second follows it.
    """
    first, second = stage.replicas
    seen = write(databases, "there")
    stage.level()
    with in_session(ConsistentSession("ann")) as session:
        assert read(databases, seen)[0] == "there"
        for link in stage.links:
            link.stall()
        mine = write(databases, "mine")
        lines = session.token().positions["default"].lines
        stage.primary.kill()
        # The second error if the connection was idle for so long that it is tested before its use.
        with pytest.raises((OperationalError, DatabaseUnavailableError)):
            write(databases, "on the connection that was there")
        stage.links[0].cut()
        first.promote()  # type: ignore[attr-defined] # it is a replica
        with psycopg.connect(first.url, autocommit=True) as connection:
            slot = f"replica_{second.port}"
            connection.execute("SELECT pg_create_physical_replication_slot(%s, true)", [slot])
            stage.links[1].lead_to(first.port)
            stage.links[1].cut()
            stage.links[1].resume()
            reached = max(number for number, _ in lines.values())
            passed = "SELECT pg_current_wal_flush_lsn() - '0/0' > %s"
            while connection.execute(passed, [reached]).fetchone() == (False,):
                connection.execute("INSERT INTO notes (body) VALUES ('of another')")
        lsn = first.flushed_lsn()
        wait_until(lambda: second.has_replayed(lsn), SECONDS, "it follows")  # type: ignore[attr-defined]
        yield session, mine


def has_receiver(stage: Stage) -> bool:
    """Tell whether the second replica is connected to its primary."""
    with psycopg.connect(stage.replicas[1].url) as connection:
        return connection.execute("SELECT FROM pg_stat_wal_receiver").fetchone() is not None


@pytest.mark.parametrize("role", [APP, "postgres"])
@pytest.mark.parametrize("streams", [True, False], ids=["streams", "cut-off"])
def test_answer_without_the_own_write_is_marked_when_the_replica_has_passed_its_position_elsewhere(
    stage: Stage, role: str, *, streams: bool
) -> None:
    """A number of another timeline says nothing, whether or not the replica can tell that it is."""
    databases = databases_of(stage, role)
    with lost_write(stage, databases) as (session, mine):
        if not streams:
            stage.links[1].stall()
            stage.links[1].cut()
            wait_until(lambda: not has_receiver(stage), SECONDS, "its receiver has ended")
        body, who = read(databases, mine)

    assert (body, who) == (None, "replica")
    assert session.marks
