"""Drills of the fallback chains of tasks, which run at the end of their jobs."""

import threading
from typing import Any

import pytest
from celery import Celery, signals
from pydantic import BaseModel

from resilience import Dependency, Level, Resilience, ResilientTask, Settings, fallback
from resilience.clock import SystemClock
from resilience.events import Event, FallbackDrilled, FallbackDrillFailed
from tests.unit.calling import Listening

EVERY_JOB = fallback.drill(share=1)
LIMIT_SECONDS = 2.0


@pytest.fixture
def listening() -> Listening:
    """Hear nothing yet."""
    return Listening()


@pytest.fixture
def app(listening: Listening) -> Celery[Any]:
    """An app that needs no servers."""
    made: Celery[Any] = Celery("drilled", broker="memory://", set_as_current=False)
    Resilience(
        made,
        dependencies=[Dependency("users", breaker=None, timeout=60.0)],
        settings=Settings(store_url=""),
        listeners=[listening],
    )
    return made


def task_of(app: Any, body: Any, *fallbacks: Any, **options: Any) -> Any:  # noqa: ANN401 - any task
    """Return a task with this body and these fallbacks."""
    kinds = {"base": ResilientTask, "dependency": "users", "shared": False}
    return app.task(body, name=body.__name__, fallbacks=list(fallbacks), **kinds, **options)


def made(app: Celery[Any], *fallbacks: Any, **options: Any) -> Any:  # noqa: ANN401 - any task
    """Return a task with these fallbacks."""

    def body(user: int) -> int:
        return user

    return task_of(app, body, *fallbacks, **options)


def test_drill_runs_when_the_job_has_ended_in_its_thread(
    app: Celery[Any], listening: Listening
) -> None:
    """Nobody waits for it then, and what frameworks keep by thread is at hand."""
    told: list[object] = []

    def stand_in(user: int) -> int:
        told.extend((user, threading.current_thread()))
        return user

    noting = {"on_success": lambda *_: told.append("success")}
    task = made(app, EVERY_JOB, fallback.call(stand_in), **noting)
    outcome = task.apply((7,)).result

    assert outcome.level is Level.FULL
    assert told == ["success", 7, threading.main_thread()]
    [found] = listening.heard
    assert isinstance(found, FallbackDrilled)
    assert (found.call, found.dependency, found.source) == ("body", "users", "stand_in")


def test_each_drilled_call_of_a_job_has_its_drill(app: Celery[Any], listening: Listening) -> None:
    """Those of pipelines that the body calls as well."""
    inner = app.resilience.pipeline(  # type: ignore[attr-defined] # ours
        "users", name="inner", fallbacks=[EVERY_JOB, fallback.static(0)]
    )

    def body(user: int) -> object:
        value = inner.call(int, user).value
        assert listening.heard == []
        return value

    task = task_of(app, body, EVERY_JOB, fallback.static(0))
    for _ in range(2):
        assert task.apply((7,)).result.value == 7
        assert [one.call for one in listening.heard if isinstance(one, FallbackDrilled)] == [
            "inner",
            "body",
        ]
        listening.heard.clear()


def test_job_that_is_not_drilled_pays_nothing_at_its_end(
    app: Celery[Any], listening: Listening
) -> None:
    """Celery's signal is connected only while a drill waits for it."""
    before = len(signals.task_postrun.receivers)
    task = made(app, EVERY_JOB, fallback.static(0))
    assert task.apply((7,)).result.value == 7

    assert len(listening.heard) == 1
    assert len(signals.task_postrun.receivers) == before


@pytest.mark.parametrize("limit", ["time_limit", "soft_time_limit"])
def test_drill_takes_no_more_than_half_of_what_a_time_limit_leaves(
    app: Celery[Any], listening: Listening, limit: str
) -> None:
    """A limit that struck meanwhile would make a failure of the job that has its answer."""

    def hang(_: int) -> None:
        threading.Event().wait(4 * LIMIT_SECONDS)

    task = made(app, EVERY_JOB, fallback.call(hang), **{limit: LIMIT_SECONDS})
    began = SystemClock.monotonic()
    assert task.apply((7,)).result.value == 7

    assert LIMIT_SECONDS / 3 < SystemClock.monotonic() - began < LIMIT_SECONDS * 0.9
    assert listening.heard == []


def test_task_inherits_a_drill_with_the_chain(app: Celery[Any]) -> None:
    """A chain of its own has a drill only if it says so."""

    class Base(ResilientTask):
        """Drills its chain."""

        abstract = True
        dependency = "users"
        fallbacks = [fallback.drill(share=0.5), fallback.static(0)]  # noqa: RUF012 - as users write

    class Same(Base):
        """Declares no chain."""

        def run(self) -> None:
            """Do nothing."""

    class Other(Base):
        """Declares another chain."""

        fallbacks = [fallback.static(1)]  # noqa: RUF012 - as above

        def run(self) -> None:
            """Do nothing."""

    shares = [getattr(one.fallbacks, "drill_share", None) for one in (Base, Same, Other)]
    assert shares == [0.5, 0.5, 0.0]
    assert len(Same.fallbacks) == 1
    app.register_task(Same())


class User(BaseModel):
    """What a task with models takes."""

    id: int


def test_chain_with_models_is_drilled_as_declared(app: Celery[Any], listening: Listening) -> None:
    """Steps get models, and those that are left out stay so."""
    calls: list[object] = []

    def by_id(user: User) -> int:
        calls.append(user.id)
        return user.id

    left_out = fallback.call(calls.append, drill=False)

    def body(user: User) -> int:
        return user.id

    task = task_of(app, body, EVERY_JOB, left_out, fallback.call(by_id), pydantic=True)
    assert task.apply(({"id": 7},)).result.value == 7

    assert calls == [7]
    [found] = listening.heard
    assert isinstance(found, FallbackDrilled)
    assert found.reasons == {"1. append": "left out of drills"}


def test_failed_job_is_not_drilled(app: Celery[Any], listening: Listening) -> None:
    """Its chain has been asked already."""

    def failing(_: int) -> None:
        raise OSError

    task = task_of(app, failing, EVERY_JOB, fallback.static(0))
    assert task.apply((7,)).result.level is Level.STATIC

    kinds_heard: set[type[Event]] = {type(event) for event in listening.heard}
    assert not kinds_heard & {FallbackDrilled, FallbackDrillFailed}
