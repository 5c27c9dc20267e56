"""Tasks run as functions, with their policies and with nothing outside of the process."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from celery.exceptions import Ignore

from resilience import (
    BreakerPolicy,
    CircuitOpenError,
    ConfigurationError,
    Dependency,
    FireAndForgetTask,
    Level,
    Outcome,
    Resilience,
    ResilientTask,
    Settings,
    fallback,
)
from resilience.events import Event, StoreLost
from resilience.testing.tasks import TaskRunner

NOWHERE = "redis://127.0.0.1:1/0"
"""Nobody listens there: whatever leaves the process is an error, or is late."""
CONSECUTIVE = 3
"""So many failures in a row open the circuit, with the next pulse."""


class Desk:
    """An adopted app whose tasks need a broker, a store and a ledger, and what they did."""

    def __init__(self, ledger: Path) -> None:
        """Declare it."""
        self.app = app = Celery("desk", broker=NOWHERE, backend=NOWHERE, set_as_current=False)
        self.ran = ran = []
        self.resilience = Resilience(
            app,
            dependencies=[
                Dependency("bank", breaker=BreakerPolicy(consecutive_failures=CONSECUTIVE))
            ],
            settings=Settings(ledger_url=f"sqlite:///{ledger}"),
        )
        bank: dict[str, Any] = {"base": ResilientTask, "dependency": "bank", "shared": False}

        @app.task(name="charge", idempotency_key="{cents}", **bank)
        def charge(cents: int) -> int:
            ran.append(cents)
            if cents < 0:
                raise ConnectionError(cents)
            return cents

        @app.task(name="quote", fallbacks=[fallback.static(0)], **bank)
        def quote(cents: int) -> int:
            return charge.run(cents)

        @app.task(name="mail", **{**bank, "base": FireAndForgetTask})
        def mail(text: str) -> None:
            ran.append(text)

        @app.task(name="order", **bank)
        def order(cents: int) -> object:
            return charge.delay(cents).get(disable_sync_subtasks=False)

        @app.task(name="skip", **bank)
        def skip() -> None:
            raise Ignore

        @app.task(name="again", autoretry_for=(LookupError,), max_retries=2, **bank)
        def again() -> int:
            ran.append("again")
            return {3: 3}[len(ran)]


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    """Where a ledger would be."""
    return tmp_path / "ledger.sqlite3"


@pytest.fixture
def desk(ledger: Path) -> Desk:
    """The app."""
    return Desk(ledger)


def test_answers_are_outcomes_and_nothing_outside_is_asked(
    desk: Desk, ledger: Path, run_task: TaskRunner, recorded_events: list[Event]
) -> None:
    """A plain value is one of level FULL; a job may run twice under its key."""
    tasks = desk.app.tasks

    assert run_task(tasks["charge"], 7) == Outcome(value=7, dependency="bank")
    assert run_task(tasks["charge"], cents=7).value == 7
    assert run_task(tasks["quote"], -1).level is Level.STATIC
    assert run_task(tasks["mail"], "hello").value is None
    assert run_task(tasks["order"], 8).value == 8
    assert desk.ran == [7, 7, -1, "hello", 8]
    assert not ledger.exists()
    assert not [one for one in recorded_events if isinstance(one, StoreLost)]


def test_what_a_task_ends_in_is_raised(desk: Desk, run_task: TaskRunner) -> None:
    """Its own error, after the retries that Celery makes, and what says that it has no result."""
    assert run_task(desk.app.tasks["again"]).value == 3
    with pytest.raises(ConnectionError, match="-1"):
        run_task(desk.app.tasks["charge"], -1)
    with pytest.raises(Ignore):
        run_task(desk.app.tasks["skip"])


def calls_until_refused(desk: Desk, run: TaskRunner) -> int:
    """Return how many calls fail before the circuit refuses one."""
    for number in range(1_000):
        with pytest.raises((ConnectionError, CircuitOpenError)) as error:
            run(desk.app.tasks["charge"], -1)
        if error.type is CircuitOpenError:
            return number
    pytest.fail("the circuit never opened")


@pytest.fixture
def runner() -> Iterator[tuple[ExitStack, TaskRunner]]:
    """One that ends within the test."""
    with ExitStack() as stack:
        yield stack, TaskRunner(stack)


def test_breakers_begin_anew_with_each_test(
    desk: Desk, runner: tuple[ExitStack, TaskRunner]
) -> None:
    """Failures of one test open no circuit in the next, and policies work within one."""
    stack, run = runner
    assert calls_until_refused(desk, run) >= CONSECUTIVE
    stack.close()
    with ExitStack() as next_stack:
        assert calls_until_refused(desk, TaskRunner(next_stack)) >= CONSECUTIVE


def test_app_is_as_it_was_afterwards(desk: Desk, runner: tuple[ExitStack, TaskRunner]) -> None:
    """Its store, its breakers, and where its tasks run."""
    stack, run = runner
    before = desk.resilience.store, desk.resilience.breaker("bank")
    used = desk.app.tasks["charge"]._guarding("bank")  # noqa: SLF001 - as after its first job
    run(desk.app.tasks["charge"], 7)
    assert desk.resilience.breaker("bank") is not before[1]
    assert desk.app.tasks["charge"]._guarding("bank") is not used  # noqa: SLF001 - as above

    stack.close()

    assert (desk.resilience.store, desk.resilience.breaker("bank")) == before
    assert desk.app.conf.task_always_eager is False
    assert desk.app.tasks["charge"]._guarding("bank") is used  # noqa: SLF001 - as above


def test_app_that_was_never_adopted_is_named(run_task: TaskRunner) -> None:
    """The error says what to write."""
    app: Celery[Any] = Celery("plain", set_as_current=False)

    @app.task(name="one", shared=False)
    def one() -> int:
        return 1

    with pytest.raises(ConfigurationError, match=r"add Resilience\(app"):
        run_task(one)
