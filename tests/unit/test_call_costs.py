"""What a call costs, in what can be counted: readings of the clock, frames, threads that wait."""

import asyncio
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from celery import Celery

from resilience import (
    CircuitOpenError,
    Dependency,
    Outcome,
    PartialResponse,
    Resilience,
    ResilientTask,
    fallback,
)
from resilience.budget.threads import HelperThreads
from resilience.settings import Settings
from tests.unit.breakers import HASTY, Rig
from tests.unit.hand_clock import HandClock
from tests.unit.python_calls import python_calls

SECONDS = 120
CALLS_OF_UNUSED_CHAIN = 15
"""Of Python functions, Celery's and those that make the outcome's text among them."""
LOOK_UP, LOOK_UPS = "_LocalStack.top", 3


class CountingClock(HandClock):
    """A clock that counts how often it is read."""

    readings = 0

    def monotonic(self) -> float:
        """Return the seconds shown."""
        self.readings += 1
        return super().monotonic()


def answer() -> int:
    """Answer at once."""
    return 7


async def answer_async() -> int:
    """Answer at once."""
    return 7


def double(number: int) -> int:
    """Return twice the number."""
    return 2 * number


def block(rig: Rig) -> None:
    """Run a block."""
    with rig.breaker:
        pass


async def block_async(rig: Rig) -> None:
    """Run a block in an event loop."""
    async with rig.breaker:
        pass


@pytest.mark.parametrize(
    "call",
    [
        pytest.param(lambda rig: rig.breaker.call(answer), id="call"),
        pytest.param(lambda rig: rig.breaker(answer)(), id="decorated"),
        pytest.param(block, id="with"),
        pytest.param(lambda rig: asyncio.run(rig.breaker.acall(answer_async)), id="acall"),
        pytest.param(lambda rig: asyncio.run(rig.breaker(answer_async)()), id="decorated-async"),
        pytest.param(lambda rig: asyncio.run(block_async(rig)), id="async-with"),
    ],
)
@pytest.mark.parametrize(("slow_seconds", "readings"), [(None, 1), (1.0, 2)])
def test_closed_circuit_reads_the_clock_again_only_where_slow_calls_count(
    call: Callable[[Rig], object], slow_seconds: float | None, readings: int
) -> None:
    """A policy without `slow_seconds` need not know how long a call took."""
    clock = CountingClock()
    rig = Rig(replace(HASTY, slow_seconds=slow_seconds), clock=clock)
    call(rig)  # sends the first pulse
    before = clock.readings

    call(rig)

    assert clock.readings - before == readings


@pytest.mark.parametrize(
    ("call", "frames"),
    [
        pytest.param(lambda rig: rig.breaker(answer), ["guarded"], id="decorated"),
        pytest.param(lambda rig: lambda: rig.breaker.call(answer), ["call", "_enter"], id="call"),
        pytest.param(lambda rig: lambda: block(rig), ["__enter__", "_enter"], id="with"),
    ],
)
def test_refusal_passes_few_frames(
    call: Callable[[Rig], Callable[[], object]], frames: list[str]
) -> None:
    """Each frame that an exception passes costs time, and a line of every traceback."""
    rig = Rig()
    guarded = call(rig)
    rig.open()

    with pytest.raises(CircuitOpenError) as caught:
        guarded()

    ours = [
        frame.name
        for frame in traceback.extract_tb(caught.value.__traceback__)
        if "breaker/breaker.py" in frame.filename
    ]
    assert ours == frames


@pytest.mark.parametrize("kind", [Outcome, PartialResponse])
def test_value_is_told_from_an_answer_without_python_code(kind: type) -> None:
    """Every argument and every result of a job is asked whether it is one."""
    with python_calls() as calls:
        isinstance({"a": 1}, kind)
        issubclass(dict, kind)
    with python_calls() as calls_of_nothing:
        pass

    assert calls == calls_of_nothing


@pytest.fixture
def app() -> Celery[Any]:
    """An adopted app, of which each process decides alone."""
    made: Celery[Any] = Celery("costs", set_as_current=False)
    Resilience(made, dependencies=[Dependency("users")], settings=Settings())
    return made


def calls_of_a_job(app: Celery[Any], **options: Any) -> list[str]:  # noqa: ANN401 - a task's
    """Return the Python functions that a job of a task with *options* calls."""
    task = app.task(shared=False, name=f"task {options}", **options)(double)
    jobs = []
    for _ in range(5):  # one that also makes what jobs share, or sends a pulse, calls more
        with python_calls() as calls:
            task.apply((7,))
        jobs.append(calls)
    return min(jobs, key=len)


def test_unused_chain_adds_few_python_calls_to_a_job(app: Celery[Any]) -> None:
    """A job whose task declares fallbacks and needs none costs little more than one without."""
    without = calls_of_a_job(app, base=ResilientTask, dependency="users")
    chain = [fallback.static(0)]
    with_chain = calls_of_a_job(app, base=ResilientTask, dependency="users", fallbacks=chain)

    assert len(with_chain) - len(without) <= CALLS_OF_UNUSED_CHAIN


def test_resilient_job_rarely_asks_celery_which_job_it_is(app: Celery[Any]) -> None:
    """Celery looks the answer up by thread, which takes as long as a closed breaker does."""
    plain = calls_of_a_job(app).count(LOOK_UP)
    ours = calls_of_a_job(app, base=ResilientTask, dependency="users").count(LOOK_UP)

    assert 0 < ours - plain <= LOOK_UPS


@pytest.fixture
def _no_turns() -> Iterator[None]:
    """Let a thread run until it waits for something."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(SECONDS)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("_no_turns")
def test_new_helper_thread_does_not_wait_for_its_first_call() -> None:
    """It finds it when it begins; to wait for it would be two changes of threads more."""
    helpers, ran = HelperThreads(), threading.Event()

    class Call:
        """Ends its thread."""

        def work(self) -> bool:
            """Say that it ran."""
            ran.set()
            return False

    helpers.give(Call())

    assert ran.is_set()
