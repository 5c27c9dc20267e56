"""Reads of one user on real replicas: own writes are seen, whoever answers."""

import asyncio
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from sqlalchemy import Executable, insert, select, text, update

from resilience.consistency import ConsistentSession, Token, in_session
from resilience.databases import Databases
from resilience.events import ReadFellBack, ReadStale
from resilience.levels import Level
from resilience.testing.waiting import wait_until
from tests.replicated import SECONDS, Note, Stage, answered, read, write

PATIENT = {"wait_seconds": 5.0, "primary_fallback_share": 1.0}
"""Of databases in tests of what is read, not of who is asked first."""


def test_read_goes_to_a_replica_and_shows_what_the_session_wrote(stage: Stage) -> None:
    """A replica that has replayed the write answers, and no answer is marked."""
    databases = stage.databases(**PATIENT)
    with in_session(ConsistentSession()) as session:
        for number in range(20):
            note = write(databases, f"body {number}")

            assert read(databases, note) == (f"body {number}", "replica")
        assert session.level is Level.FULL


def test_read_falls_back_to_the_primary_when_no_replica_has_the_write(
    stage: Stage, databases: Databases
) -> None:
    """After the wait the primary answers, which is announced."""
    with stage.stalled(), in_session(ConsistentSession()) as session:
        note = write(databases, "only on the primary")

        assert read(databases, note) == ("only on the primary", "primary")
        assert session.level is Level.FULL
    assert [type(event) for event in stage.events] == [ReadFellBack]


def test_replica_that_has_the_write_answers_while_another_one_lacks_it(
    stage: Stage, databases: Databases
) -> None:
    """One stalled link keeps no read from the replica whose link works."""
    with stage.stalled(0), in_session(ConsistentSession()):
        for number in range(10):
            note = write(databases, f"body {number}")
            lsn = stage.primary.flushed_lsn()
            wait_until(lambda at=lsn: stage.replicas[1].has_replayed(at), SECONDS, "it is there")

            assert read(databases, note) == (f"body {number}", "replica")


def test_reads_of_a_writing_transaction_go_where_it_writes(
    stage: Stage, databases: Databases
) -> None:
    """From the first write on the transaction sees its own uncommitted rows."""
    with stage.stalled(), databases.Session() as session:
        session.add(Note(id=100_001, body="uncommitted"))
        session.flush()

        assert answered(session, 100_001) == ("uncommitted", "primary")
        session.rollback()
    assert read(databases, 100_001) == (None, "replica")


@pytest.mark.parametrize(
    "statement",
    [
        pytest.param(insert(Note).values(id=100_002, body="x"), id="insert"),
        pytest.param(update(Note).values(body="x").where(Note.id == -1), id="update"),
        pytest.param(select(Note).where(Note.id == -1).with_for_update(), id="for-update"),
        pytest.param(text("SELECT 1"), id="text"),
    ],
)
def test_statement_that_may_write_goes_to_the_primary(
    databases: Databases, statement: Executable
) -> None:
    """So do the reads after it."""
    with databases.Session() as session:
        session.execute(statement)

        assert answered(session, -1) == (None, "primary")


def test_using_primary_reads_there(stage: Stage, databases: Databases) -> None:
    """By session, by statement or by the consistent session."""
    note = write(databases, "here")

    assert read(databases, note, using="primary") == ("here", "primary")
    with databases.Session() as session:
        assert answered(session, note, using="primary") == ("here", "primary")
    with in_session(ConsistentSession()) as pinned:
        pinned.using = "primary"
        assert read(databases, note) == ("here", "primary")
    stage.level()
    assert read(databases, note) == ("here", "replica")


def test_read_of_other_keys_waits_for_no_write(stage: Stage) -> None:
    """Where the app names keys, a read waits for the writes of its own keys only."""
    databases = stage.databases(wait_seconds=5.0)
    with in_session(ConsistentSession()):
        write(databases, "before")
        stage.level()
        with stage.stalled():
            note = write(databases, "late", keys=["note:late"])
            with databases.Session() as session:
                assert answered(session, note, keys=["note:other"]) == (None, "replica")
            quick = stage.databases(wait_seconds=0.01)
            with quick.Session() as session:
                assert answered(session, note, keys=["note:late"]) == ("late", "primary")


def test_token_takes_what_was_written_to_another_process(stage: Stage) -> None:
    """A process that never saw the write waits for its position all the same."""
    with in_session(ConsistentSession()) as session:
        databases = stage.databases(**PATIENT)
        write(databases, "warm")
        stage.level()
        with stage.stalled():
            note = write(databases, "travels")
            token = Token.from_json(session.token().to_json())

            other = stage.databases(wait_seconds=0.01)
            with in_session(ConsistentSession(token=token)):
                assert read(other, note) == ("travels", "primary")
            with in_session(ConsistentSession()):
                assert read(databases, note) == (None, "replica")


def test_session_never_goes_back_behind_what_it_saw_elsewhere(stage: Stage) -> None:
    """What it read from one replica a replica that is behind does not answer."""
    databases = stage.databases(wait_seconds=0.01, replicas=[stage.replicas[0].url])
    behind = stage.databases(wait_seconds=0.01, replicas=[stage.replicas[1].url])
    note = write(databases, "old")
    stage.level()
    stage.await_lag(behind)
    with stage.stalled(1):
        with in_session(ConsistentSession()):
            databases.wait_seconds = 5.0
            with databases.Session() as session, session.begin():
                session.execute(update(Note).values(body="new").where(Note.id == note))
            assert read(databases, note) == ("new", "replica")
        with in_session(ConsistentSession()) as reader:
            assert read(databases, note) == ("new", "replica")
            assert read(behind, note) == ("new", "primary")
            token = reader.token()
        with in_session(ConsistentSession(token=token)):
            assert read(behind, note) == ("new", "primary")
        with in_session(ConsistentSession()):
            assert read(behind, note) == ("old", "replica")


def test_reads_that_fall_back_are_a_share_of_all(stage: Stage) -> None:
    """Beyond `primary_fallback_share` a read is stale and marked, and the primary is left alone."""
    databases = stage.databases(wait_seconds=0.0, primary_fallback_share=0.1)
    with in_session(ConsistentSession()):
        write(databases, "warm")
    stage.level()
    with stage.stalled(), in_session(ConsistentSession()) as session:
        note = write(databases, "late")
        answers = [read(databases, note) for _ in range(200)]
    back = answers.count(("late", "primary"))

    assert 20 <= back <= 40  # a tenth, and what is not counted before there are twenty
    assert answers.count((None, "replica")) == 200 - back
    assert session.level is Level.STALE
    assert any(isinstance(event, ReadStale) for event in stage.events)


def test_async_sessions_route_likewise_and_never_block_the_loop(stage: Stage) -> None:
    """While one waits for a replica, others read; that it then answers ends the wait."""

    async def run() -> tuple[Any, list[Any], Any]:
        databases = stage.databases(wait_seconds=30.0)

        async def write_one(body: str) -> int:
            async with databases.AsyncSession() as session, session.begin():
                note = Note(body=body)
                session.add(note)
                await session.flush()
                return note.id

        async def read_one(note: int) -> tuple[str | None, str]:
            async with databases.AsyncSession() as session:
                return await session.run_sync(lambda one: answered(one, note))

        with in_session(ConsistentSession()):
            first = await write_one("level")
            await asyncio.to_thread(stage.level)
            seen = await read_one(first)
            with stage.stalled():
                second = await write_one("late")
                reading = asyncio.create_task(read_one(second))
                with in_session(ConsistentSession()):
                    others = [await read_one(first) for _ in range(20)]
                assert not reading.done()
            late = await reading
        await databases.aclose()
        return seen, others, late

    seen, others, late = asyncio.run(run())

    assert seen == ("level", "replica")
    assert others == [("level", "replica")] * 20
    assert late == ("late", "replica")


def test_coroutine_that_hands_its_token_on_has_found_out_what_it_saw(stage: Stage) -> None:
    """In the event loop, in a thread, and where one can await."""

    async def run() -> list[Token]:
        databases = stage.databases(**PATIENT)
        tokens = []
        with in_session(ConsistentSession()) as session:
            for ask in (
                lambda: asyncio.sleep(0, session.token()),
                lambda: asyncio.to_thread(session.token),
                session.token_async,
            ):
                async with databases.AsyncSession() as reading:
                    await reading.execute(select(Note.id))
                tokens.append(await ask())
        await databases.aclose()
        return tokens

    tokens = asyncio.run(run())

    assert [token.unknown for token in tokens] == [{}, {}, {}]
    assert all(token.positions["default"] for token in tokens)


def test_check_fixes_no_snapshot(stage: Stage) -> None:
    """A transaction that reads repeatably sees what its check promised."""
    databases = stage.databases(isolation_level="REPEATABLE READ", **PATIENT)
    with in_session(ConsistentSession()):
        for number in range(30):
            note = write(databases, f"body {number}")

            assert read(databases, note) == (f"body {number}", "replica")


def test_role_that_may_read_statistics_can_be_routed(stage: Stage) -> None:
    """Without, it is not told the timeline; then the primary answers, and the reason says why."""
    with psycopg.connect(stage.primary.url, autocommit=True) as connection:
        connection.execute("CREATE ROLE plain LOGIN")
        connection.execute("GRANT ALL ON ALL TABLES IN SCHEMA public TO plain")
        connection.execute("GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO plain")
        stage.level()
        servers = (stage.primary, stage.replicas[0])
        as_plain = [server.url.replace("postgres@", "plain@") for server in servers]
        databases = stage.databases(primary=as_plain[0], replicas=as_plain[1:], wait_seconds=0.0)
        with in_session(ConsistentSession()):
            note = write(databases, "plain")
            stage.level()
            before = read(databases, note)
        assert before == ("plain", "primary")
        assert "GRANT pg_read_all_stats" in str(stage.events)

        connection.execute("GRANT pg_read_all_stats TO plain")
        stage.level()
        with in_session(ConsistentSession()):
            note = write(databases, "granted")
            stage.level()

            assert read(databases, note) == ("granted", "replica")


def test_two_threads_share_databases(stage: Stage) -> None:
    """Each with a session of its own sees its own writes."""
    databases = stage.databases(**PATIENT)

    def run(number: int) -> bool:
        with in_session(ConsistentSession()):
            note = write(databases, f"thread {number}")
            return read(databases, note)[0] == f"thread {number}"

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(run, range(80)))


def test_forked_child_has_connections_of_its_own(stage: Stage) -> None:
    """The parent's stay usable when the child has used the same databases."""
    databases = stage.databases(**PATIENT)
    with in_session(ConsistentSession()):
        note = write(databases, "parent")
        read(databases, note)
        child = os.fork()
        if child == 0:
            status = 1
            try:
                with in_session(ConsistentSession()):
                    own = write(databases, "child")
                    status = 0 if read(databases, own)[0] == "child" else 2
            finally:
                os._exit(status)
        assert os.waitpid(child, 0)[1] == 0
        assert read(databases, note) == ("parent", "replica")


def test_pinned_thread_is_free_when_its_session_ended(databases: Databases) -> None:
    """What one job needs, the next job on the same thread does not."""
    seen: list[str] = []

    def work() -> None:
        with in_session(ConsistentSession()) as session:
            session.using = "primary"
            seen.append(read(databases, 1)[1])
        seen.append(read(databases, 1)[1])

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()

    assert seen == ["primary", "replica"]
