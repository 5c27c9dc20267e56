"""Calls in helper threads: what comes back, what is left behind, and what that costs others."""

import contextvars
import functools
import os
import random
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter
from typing import Any

import pytest
from celery import Celery, Task, current_task
from celery._state import get_current_task

from resilience import TimeoutBudget
from resilience.budget.threads import AbandonedError, HelperThreads, cleaners, helper_threads
from resilience.errors import TooManyAbandonedError
from resilience.tasks import publishing
from resilience.testing.waiting import wait_until
from tests.tracing import cuts_a_thread

ABANDONED_MAX = 64

SECONDS = 120
ENDLESS_SECONDS = 10.0
ROUNDS = [500, pytest.param(20_000, marks=pytest.mark.long)]

setting = contextvars.ContextVar("setting", default="none")


@pytest.fixture
def helpers() -> Iterator[HelperThreads]:
    """Helper threads of the test's own, of which none is left behind."""
    made = HelperThreads()
    yield made
    wait_until(lambda: not made.abandoned, SECONDS, "no call is left behind")


@pytest.fixture
def ended() -> Iterator[threading.Event]:
    """What calls wait for that are left behind; set in the end."""
    event = threading.Event()
    yield event
    event.set()


def spin() -> None:
    """Keep the interpreter busy."""
    deadline = perf_counter() + ENDLESS_SECONDS
    while perf_counter() < deadline:
        pass


def leave_behind(helpers: HelperThreads, ended: threading.Event) -> None:
    """Leave as many calls behind as there may be; they are not interrupted, so that all stay."""
    for _ in range(ABANDONED_MAX):
        with pytest.raises(AbandonedError):
            helpers.run(ended.wait, 0.001, interrupt=False)


def test_result_comes_back(helpers: HelperThreads) -> None:
    """A call in another thread returns what it returns here."""
    assert helpers.run(lambda: (threading.current_thread().name, 7), SECONDS, interrupt=True) == (
        "resilience-helper",
        7,
    )


@pytest.mark.parametrize("error", [OSError("gone"), StopIteration(), SystemExit(3)])
def test_error_comes_back_with_its_traceback(helpers: HelperThreads, error: BaseException) -> None:
    """The very error of the call is raised, and says where in the call it came from."""

    def deep_inside() -> None:
        raise error

    def call() -> None:
        deep_inside()

    with pytest.raises(type(error)) as caught:
        helpers.run(call, SECONDS, interrupt=True)

    assert caught.value is error
    names = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert names[-2:] == ["call", "deep_inside"]


def test_context_comes_along(helpers: HelperThreads) -> None:
    """The call sees its caller's context variables; what it sets is not seen outside."""

    def call() -> str:
        seen = setting.get()
        setting.set("changed")
        return seen

    setting.set("the caller's")

    assert helpers.run(call, SECONDS, interrupt=True) == "the caller's"
    assert setting.get() == "the caller's"


def test_running_job_of_celery_comes_along(helpers: HelperThreads) -> None:
    """Code that asks Celery which job it runs in is told, and later calls are told nothing."""
    assert publishing  # it brings Celery's job along, once it is imported
    app = Celery("helpers", set_as_current=False)
    told: list[object] = []

    @app.task(bind=True, shared=False, name="job")
    def job(self: Task[Any, Any]) -> None:
        told.append(
            helpers.run(lambda: (current_task.name, self.request.id), SECONDS, interrupt=True)
        )

    job.apply(task_id="seven")

    assert told == [("job", "seven")]
    assert helpers.run(get_current_task, SECONDS, interrupt=True) is None


def test_thread_of_the_librarys_own_calls_is_used_again(helpers: HelperThreads) -> None:
    """Calls one after the other, as publishes are, take one thread, also after an error."""

    def fail() -> None:
        raise ConnectionError

    idents = set()
    for _ in range(50):
        idents.add(helpers.run(threading.get_ident, SECONDS, interrupt=False))
        with pytest.raises(ConnectionError):
            helpers.run(fail, SECONDS, interrupt=False)

    assert len(idents) == 1


def test_call_of_an_app_finds_nothing_that_another_kept_by_thread(helpers: HelperThreads) -> None:
    """Its thread ends with it, cleaned as the app has asked for, though a cleaner fails."""
    kept, cleaned = threading.local(), threading.Semaphore(0)

    def call() -> bool:
        found = hasattr(kept, "session")
        kept.session = "a session"
        return found

    def fail() -> None:
        raise ConnectionError

    def clean() -> None:
        if kept.session:
            cleaned.release()

    own = [fail, clean]
    cleaners.extend(own)
    try:
        assert [helpers.run(call, SECONDS, interrupt=True) for _ in range(5)] == [False] * 5
        assert all(cleaned.acquire(timeout=SECONDS) for _ in range(5))
    finally:
        for one in own:
            cleaners.remove(one)


def test_call_that_takes_too_long_is_left_behind(
    helpers: HelperThreads, ended: threading.Event
) -> None:
    """Its caller goes on; it is counted until it ends."""
    with pytest.raises(AbandonedError, match=r"left behind after 0.01 s"):
        helpers.run(ended.wait, 0.01, interrupt=False)

    assert helpers.abandoned == 1
    ended.set()
    wait_until(lambda: not helpers.abandoned, SECONDS, "it has ended")


def test_number_of_calls_left_behind_is_bounded(
    helpers: HelperThreads, ended: threading.Event
) -> None:
    """When too many still run none is begun, and the error says so; once they end, all is well."""
    called: list[int] = []
    leave_behind(helpers, ended)

    with pytest.raises(TooManyAbandonedError, match=f"{ABANDONED_MAX} calls that were given up"):
        helpers.run(lambda: called.append(1), SECONDS, interrupt=True)

    assert not called
    assert helpers.abandoned == ABANDONED_MAX
    ended.set()
    wait_until(lambda: not helpers.abandoned, SECONDS, "they have ended")
    assert helpers.run(lambda: 7, SECONDS, interrupt=True) == 7


def test_default_stands_in_when_too_many_are_left_behind(ended: threading.Event) -> None:
    """A refusal is what a default is for, and a reason like any other."""
    budget = TimeoutBudget(60)

    def call() -> object:
        leave_behind(helper_threads, ended)
        return budget.run(int, default="default")

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(call).result(SECONDS) == "default"
    assert budget.reasons["int"] == "TooManyAbandonedError"
    ended.set()
    wait_until(lambda: not helper_threads.abandoned, SECONDS, "they have ended")


@cuts_a_thread
def test_spinning_call_is_interrupted(helpers: HelperThreads) -> None:
    """A call that was given up stops as soon as it runs Python code, and cleans up."""
    cleaned: list[bool] = []

    def call() -> None:
        try:
            spin()
        finally:
            cleaned.append(True)

    began = perf_counter()
    with pytest.raises(AbandonedError):
        helpers.run(call, 0.05, interrupt=True)
    wait_until(lambda: not helpers.abandoned, SECONDS, "it has ended")

    assert cleaned
    assert perf_counter() - began < ENDLESS_SECONDS


def test_call_that_must_not_be_interrupted_goes_on(
    helpers: HelperThreads, ended: threading.Event
) -> None:
    """What is begun without interrupts, as a publish is, comes to its own end."""
    done = threading.Event()

    def call() -> None:
        ended.wait(ENDLESS_SECONDS)
        for _ in range(1000):
            threading.get_ident()
        done.set()

    with pytest.raises(AbandonedError):
        helpers.run(call, 0.01, interrupt=False)
    ended.set()

    assert done.wait(SECONDS)


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")  # we fork on purpose
def test_fork_begins_without_threads(helpers: HelperThreads, ended: threading.Event) -> None:
    """A child has none of its parent's threads: it counts none, and makes its own."""
    helpers.run(str, SECONDS, interrupt=True)
    with pytest.raises(AbandonedError):
        helpers.run(ended.wait, 0.01, interrupt=False)
    helpers.run(str, SECONDS, interrupt=True)

    child = os.fork()
    if not child:
        code = 1
        try:
            if not helpers.abandoned and helpers.run(lambda: 7, 5, interrupt=True) == 7:
                code = 0
        finally:
            os._exit(code)

    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert helpers.abandoned == 1


@pytest.fixture
def hectic() -> Iterator[None]:
    """Threads take turns as often as they can, so that they meet where they rarely do."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def crowd(call: Callable[[int], None], threads: int = 4) -> None:
    """Let some threads call at once."""
    with ThreadPoolExecutor(threads) as pool:
        for done in [pool.submit(call, number) for number in range(threads)]:
            done.result(4 * SECONDS)


# An interrupt may meet a finaliser, which loses it: Python ignores what is raised there.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.usefixtures("hectic")
@pytest.mark.parametrize("rounds", ROUNDS)
def test_limit_that_meets_the_end_of_its_call_hits_no_other(
    helpers: HelperThreads, rounds: int
) -> None:
    """Whenever a call ends, its caller has its own result or the limit's error, and only that."""
    ends = {"in time": 0, "late": 0}

    def work(number: float) -> float:
        for _ in range(50):
            number += 1
        return number - 50

    def call(seed: int) -> None:
        dice = random.Random(seed)  # noqa: S311 - to vary limits
        for number in range(rounds):
            mine = seed * rounds + number
            try:
                limit = dice.uniform(0, 3e-4)
                found = helpers.run(functools.partial(work, mine), limit, interrupt=True)
            except (AbandonedError, TooManyAbandonedError):
                ends["late"] += 1
            else:
                ends["in time"] += 1
                assert found == mine

    crowd(call)

    assert all(ends.values()), ends
    wait_until(lambda: not helpers.abandoned, SECONDS, "all calls have ended")
    assert helpers.run(lambda: 7, SECONDS, interrupt=True) == 7


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # as above
@pytest.mark.usefixtures("hectic")
def test_thread_ends_in_silence_where_django_is_imported_and_not_configured(
    helpers: HelperThreads, caplog: pytest.LogCaptureFixture
) -> None:
    """A library that only imports Django makes no helper thread write an error as it ends."""
    pytest.importorskip("django.db")

    ended = helpers.run(threading.get_ident, SECONDS, interrupt=True)
    wait_until(
        lambda: ended not in [one.ident for one in threading.enumerate()], SECONDS, "it ended"
    )
    assert not caplog.records


@pytest.mark.parametrize("rounds", ROUNDS)
def test_interrupt_never_reaches_a_call_in_time(helpers: HelperThreads, rounds: int) -> None:
    """Calls that have time are never cut by the limits of those that have none beside them."""

    def call(seed: int) -> None:
        for _ in range(rounds // 10):
            if seed % 2:
                with pytest.raises((AbandonedError, TooManyAbandonedError)):
                    helpers.run(spin, 0.001, interrupt=True)
            else:
                total = helpers.run(lambda: sum(range(20_000)), SECONDS, interrupt=True)
                assert total == 199_990_000

    crowd(call)
