"""A user reads what was written for the same user, here or elsewhere."""

import asyncio
from collections.abc import Iterator

import pytest
from celery import Celery

from resilience.consistency import current_session
from resilience.errors import ConfigurationError
from resilience.tasks import Resilience
from resilience.testing.waiting import wait_until
from tests.integration.apps.positions import seen
from tests.integration.apps.positions_stage import (
    SECONDS,
    Stage,
    close_app,
    new_keys,
    running_stage,
)
from tests.replicated import Stage as Replicated


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, replicated: Replicated) -> Iterator[Stage]:
    """Servers and a worker."""
    with running_stage(tmp_path_factory, replicated) as stage:
        yield stage


@pytest.fixture
def stage(running: Stage) -> Iterator[Stage]:
    """A replica that lags."""
    running.fall_behind()
    yield running
    running.link.resume()


@pytest.fixture
def elsewhere(stage: Stage) -> Iterator[Celery]:
    """The app of another process, as far as that matters: it knows nothing of the first one."""
    app = stage.another_app()
    adopted = Resilience.of(app)

    def misses() -> bool:
        [key] = new_keys(1)
        stage.write(key)
        return read(adopted, key) == []

    wait_until(misses, SECONDS, "it reads from the replica")
    yield app
    close_app(app)


def read(adopted: Resilience, *keys: str) -> list[str]:
    """Return those of *keys* whose rows can be read in this process."""
    adopted.app.set_current()
    return seen(list(keys))


def test_user_sees_own_writes_elsewhere(stage: Stage, elsewhere: Celery) -> None:
    """And nobody else has to: another user's reads go to the replica as ever."""
    user, other, key = new_keys(3)
    with stage.adopted.consistent_session(user):
        stage.write(key)
    adopted = Resilience.of(elsewhere)
    with adopted.consistent_session(user):
        assert read(adopted, key) == [key]
    with adopted.consistent_session(other):
        assert read(adopted, key) == []
    assert current_session() is None


def test_user_sees_own_writes_elsewhere_on_an_event_loop(stage: Stage, elsewhere: Celery) -> None:
    """`async with` is the same."""
    user, key = new_keys(2)
    adopted = Resilience.of(elsewhere)

    async def write() -> None:
        async with stage.adopted.consistent_session(user) as session:
            assert current_session() is session
            await asyncio.to_thread(stage.write, key)
        assert current_session() is None

    async def see() -> list[str]:
        async with adopted.consistent_session(user):
            return await asyncio.to_thread(read, adopted, key)

    asyncio.run(write())
    assert asyncio.run(see()) == [key]


@pytest.mark.parametrize("kind", ["plain", "resilient"])
def test_caller_sees_what_its_job_wrote_after_a_refresh(stage: Stage, kind: str) -> None:
    """The job has its user's key, and shares what it wrote before anybody hears of its end."""
    for _ in range(10):
        user, key = new_keys(2)
        with stage.adopted.consistent_session(user) as session:
            stage.s(f"{kind}.write", key).apply_async().get(timeout=SECONDS)
            session.refresh()
            assert read(stage.adopted, key) == [key]


def test_caller_sees_what_a_failed_job_wrote(stage: Stage) -> None:
    """A job that fails may have written before."""
    user, key = new_keys(2)
    with stage.adopted.consistent_session(user) as session:
        failed = stage.s("plain.write_and_fail", key).apply_async()
        assert isinstance(failed.get(timeout=SECONDS, propagate=False), ConnectionError)
        session.refresh()
        assert read(stage.adopted, key) == [key]


def test_without_the_store_the_primary_answers(stage: Stage, elsewhere: Celery) -> None:
    """Nobody can know then what the user wrote elsewhere."""
    user, key = new_keys(2)
    with stage.adopted.consistent_session(user):
        stage.write(key)
    stage.store.stop()
    try:
        adopted = Resilience.of(elsewhere)
        with adopted.consistent_session(user):
            assert read(adopted, key) == [key]
    finally:
        stage.store.start()


def test_block_in_a_block_sees_what_the_one_around_it_saw(stage: Stage) -> None:
    """And the other way round; the key stays its own."""
    first, second, user = new_keys(3)
    with stage.adopted.consistent_session() as outer:
        stage.write(first)
        with stage.adopted.consistent_session(user):
            assert read(stage.adopted, first) == [first]
            stage.write(second)
        assert current_session() is outer
        assert outer.key is None
        assert read(stage.adopted, second) == [second]


def test_block_ends_when_its_body_fails(stage: Stage) -> None:
    """What it wrote is known elsewhere all the same."""
    user, key = new_keys(2)

    def fail() -> None:
        with stage.adopted.consistent_session(user):
            stage.write(key)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert current_session() is None
    with stage.adopted.consistent_session(user):
        assert read(stage.adopted, key) == [key]


def test_eager_job_runs_in_its_callers_session(stage: Stage) -> None:
    """It sees what the caller wrote and the other way round, and leaves the session as it was."""
    first, second = new_keys(2)
    stage.app.conf.task_always_eager = True
    try:
        with stage.adopted.consistent_session() as session:
            stage.write(first)
            stage.app.set_current()
            assert stage.s("plain.seen", first).apply_async().get() == [first]
            assert stage.s("always.seen", first).apply_async().get() == [first]
            assert current_session() is session
            assert (session.using, session.sticky) == (None, False)
            stage.s("resilient.write", second).apply_async().get()
            assert read(stage.adopted, second) == [second]
        assert stage.s("plain.around").apply_async().get() == {"using": None}
        assert current_session() is None
    finally:
        stage.app.conf.task_always_eager = False


def test_two_databases_of_one_name_are_refused(stage: Stage) -> None:
    """The message names it."""
    with pytest.raises(ConfigurationError, match="'default' are declared twice"):
        stage.adopted.databases(primary="postgresql+psycopg://localhost/x")


def test_refresh_needs_a_user(stage: Stage) -> None:
    """A session of nobody in particular has nothing to look for."""
    with (
        stage.adopted.consistent_session() as session,
        pytest.raises(ConfigurationError, match="consistent_session"),
    ):
        session.refresh()
