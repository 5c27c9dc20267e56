"""Sessions on MariaDB, where its driver or its server differ from PostgreSQL's."""

from collections.abc import Iterator

import pytest
from sqlalchemy import select, update

from resilience.consistency import ConsistentSession, in_session
from resilience.databases import Databases
from resilience.pulse import Pulse
from resilience.testing.waiting import wait_until
from tests.integration.consistency_routers import Base, Item
from tests.integration.consistency_stage import SECONDS, Stage, running_mariadb_stage


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    """A primary and a replica, whose table is empty."""
    with running_mariadb_stage("redis://unused", replicas=1) as stage:
        yield stage


def test_statement_that_commits_itself_is_a_write(stage: Stage) -> None:
    """On connections in autocommit there is no commit to wait for."""
    databases = Databases(
        primary=stage.urls.primary,
        replicas=stage.urls.replicas,
        pulse=Pulse(None),
        isolation_level="AUTOCOMMIT",
        wait_seconds=0.0,
    )
    with databases.Session() as session:
        Base.metadata.create_all(session.connection())
        session.add(Item(key="note", trail="old"))
        session.flush()
    position = stage.position()
    for replica in stage.replicas:
        wait_until(lambda one=replica: one.has_replayed(position), SECONDS, "it is level")
    with databases.Session() as session:
        session.scalar(select(Item.trail))
    wait_until(lambda: databases.history.newest is not None, SECONDS, "the primary has been seen")
    for link in stage.links:
        link.stall()
    with in_session(ConsistentSession()):
        with databases.Session(keys=["note"]) as session:
            session.execute(update(Item).values(trail="new").where(Item.key == "note"))
        with databases.Session() as session:
            query = select(Item.trail).where(Item.key == "note")
            shown = session.scalar(query, bind_arguments={"keys": ["note"]})
    for link in stage.links:
        link.resume()
    databases.close()

    assert shown == "new"
