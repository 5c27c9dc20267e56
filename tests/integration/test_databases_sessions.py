"""What a user's SQLAlchemy code may do between a write and a read, and still see the write."""

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import psycopg
import pytest
from sqlalchemy import NullPool, select, text, update
from sqlalchemy.exc import DBAPIError, IntegrityError

from resilience.consistency import ConsistentSession, Token, in_session
from resilience.databases import Databases
from resilience.events import ReadFellBack
from resilience.levels import Level
from tests.replicated import SECONDS, Note, Stage, answered, read, timed, write


@pytest.fixture
def note(databases: Databases, stage: Stage) -> Iterator[int]:
    """A note that every replica has as `old`, and that changes while they get nothing."""
    note = write(databases, "old")
    stage.level()
    read(databases, note)
    with stage.stalled():
        yield note


def change(databases: Databases, note: int, body: str = "new") -> None:
    """Commit another body of the note, in no consistent session."""
    with databases.Session() as session, session.begin():
        session.execute(update(Note).values(body=body).where(Note.id == note))


@pytest.mark.parametrize("how", ["text", "for update", "connection"])
def test_what_the_primary_has_shown_is_not_unseen_again(
    databases: Databases, note: int, how: str
) -> None:
    """Whatever the statement was, and though the transaction committed nothing."""
    change(databases, note)
    with in_session(ConsistentSession()):
        with databases.Session() as session:
            if how == "text":
                session.execute(text("SELECT body FROM notes"))
            elif how == "connection":
                session.connection().execute(select(Note.body))
            else:
                session.execute(select(Note.body).with_for_update())

        assert read(databases, note) == ("new", "primary")


def test_transaction_that_reads_goes_on_at_the_primary_once_it_needs_more(
    databases: Databases, note: int
) -> None:
    """Another session of the same user may have written meanwhile."""
    with in_session(ConsistentSession()), databases.Session() as reading:
        assert answered(reading, note) == ("old", "replica")
        change(databases, note)

        assert answered(reading, note) == ("new", "primary")


def test_transaction_that_reads_goes_on_at_the_primary_once_that_was_read_from(
    databases: Databases, note: int, stage: Stage
) -> None:
    """Another session of the same user has shown there what somebody else wrote."""
    with in_session(ConsistentSession()) as user, databases.Session() as reading:
        assert read(databases, note) == ("old", "replica")
        user.token()  # the transaction on the replica will add nothing to it
        assert answered(reading, note) == ("old", "replica")
        with psycopg.connect(stage.primary.url) as connection:
            connection.execute("UPDATE notes SET body = 'new' WHERE id = %s", [note])
        assert read(databases, note, using="primary") == ("new", "primary")

        assert answered(reading, note) == ("new", "primary")


def test_read_without_keys_needs_more_than_the_one_with_keys_before_it(
    databases: Databases, note: int
) -> None:
    """In one transaction, too."""
    with in_session(ConsistentSession()):
        with databases.Session(keys=["mine"]) as session, session.begin():
            session.execute(update(Note).values(body="new").where(Note.id == note))
        with databases.Session() as session:
            assert answered(session, note, keys=["other"]) == ("old", "replica")
            assert answered(session, note) == ("new", "primary")


def test_commit_after_the_block_belongs_to_the_session_of_the_statement(
    databases: Databases, note: int
) -> None:
    """As when a framework ends the transaction later than the user's session."""
    user = ConsistentSession()
    with databases.Session(keys=["mine"]) as session:
        with in_session(user):
            session.execute(update(Note).values(body="new").where(Note.id == note))
        session.commit()

    with in_session(user), databases.Session() as session:
        assert answered(session, note, keys=["mine"]) == ("new", "primary")


def test_session_without_a_user_sees_its_own_write(databases: Databases, stage: Stage) -> None:
    """`refresh` after a commit finds the row."""
    with stage.stalled(), databases.Session() as session:
        note = Note(body="mine")
        session.add(note)
        session.commit()
        session.refresh(note)

        assert note.body == "mine"


def test_statement_that_commits_itself_is_a_write(stage: Stage) -> None:
    """On connections in autocommit there is no commit to wait for."""
    databases = stage.databases(isolation_level="AUTOCOMMIT", wait_seconds=0.0)
    note = write(databases, "old")
    stage.level()
    read(databases, note)
    with stage.stalled(), in_session(ConsistentSession()):
        with databases.Session(keys=["mine"]) as session:
            session.execute(update(Note).values(body="new").where(Note.id == note))
        with databases.Session() as session:
            assert answered(session, note, keys=["mine"]) == ("new", "primary")


def test_failed_flush_leaves_nothing_behind(databases: Databases, stage: Stage) -> None:
    """The server has said that it did not write."""
    note = write(databases, "there")
    stage.level()
    with in_session(ConsistentSession()) as session:
        with databases.Session() as failing, suppress(IntegrityError):
            failing.add(Note(id=note, body="twice"))
            failing.commit()

        assert not session.is_unknown("default")
        stage.level()
        databases.wait_seconds = 5.0
        assert read(databases, note) == ("there", "replica")


def test_full_pool_opens_no_circuit(stage: Stage) -> None:
    """It is this process that has too much to do, not the server."""
    options: dict[str, Any] = {"pool_size": 1, "max_overflow": 0, "pool_timeout": 0.05}
    databases = stage.databases(wait_seconds=0.0, primary_fallback_share=1.0, **options)
    note = write(databases, "there")
    stage.level()
    with databases.Session() as holding:
        answered(holding, note)
        for _ in range(3):
            read(databases, note, using=None)

    assert [server.breaker.known_state for server in databases.replicas] == ["closed", "closed"]
    assert databases.primary.breaker.known_state == "closed"


@pytest.mark.parametrize("using", [None, "primary"])
def test_what_an_open_transaction_has_read_is_found_out_on_its_own_connection(
    stage: Stage, using: str | None
) -> None:
    """A job that is published in it must not wait for another connection, which may never come."""
    options: dict[str, Any] = {"pool_size": 1, "max_overflow": 0, "pool_timeout": SECONDS}
    databases = stage.databases(wait_seconds=5.0, **options)
    note = write(databases, "there")
    stage.level()
    with in_session(ConsistentSession()) as user, databases.Session(using=using) as session:
        answered(session, note)
        seconds = timed(user.token)
        again = answered(session, note)

    assert again[0] == "there"
    assert not user.is_unknown("default")
    assert user.needed("default")
    assert seconds < SECONDS / 4


def test_transaction_that_has_failed_is_not_asked_for_more(databases: Databases) -> None:
    """Another connection is; the circuit stays closed."""
    with in_session(ConsistentSession()) as user, databases.Session() as session:
        with suppress(DBAPIError):
            session.execute(text("SELECT 1 / 0"))
        user.token()

    assert not user.is_unknown("default")
    assert databases.primary.breaker.known_state == "closed"


def test_share_holds_also_for_users_of_whom_nothing_is_known(
    databases: Databases, note: int, stage: Stage
) -> None:
    """As for all of them while the store is down: the primary must not get every read."""
    stage.events.clear()
    lost = Token(unknown={"default": databases.fleet_time()})
    levels = []
    for _ in range(100):
        with in_session(ConsistentSession(token=lost)) as session:
            read(databases, note)
            levels.append(session.level)

    assert sum(isinstance(event, ReadFellBack) for event in stage.events) <= 45
    assert levels.count(Level.STALE) >= 55


def test_pool_of_the_users_choice_is_taken(stage: Stage) -> None:
    """Options of other pools are not added to it."""
    databases = stage.databases(poolclass=NullPool, wait_seconds=5.0)
    with in_session(ConsistentSession()):
        note = write(databases, "there")

        assert read(databases, note)[0] == "there"
