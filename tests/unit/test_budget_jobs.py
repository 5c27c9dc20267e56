"""Jobs in threads of their own: each ends once, in its thread or where it is awaited."""

import random
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from time import perf_counter
from typing import Any

import pytest

from resilience.budget import call_within
from resilience.budget.jobs import GivenUp, Job, current_job
from resilience.budget.threads import helper_threads
from resilience.testing.waiting import wait_until
from tests.tracing import cuts_a_thread

SECONDS = 120
ENDLESS_SECONDS = 10.0
ROUNDS = 500


class LateError(Exception):
    """What the limit of a test raises."""


class InnerError(Exception):
    """What a limit inside the job raises."""


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    """Wait until what a test left behind has ended."""
    yield
    wait_until(lambda: not helper_threads.abandoned, SECONDS, "no call is left behind")


def run(body: Callable[[], Any], seconds: float, ends: list[object] | None = None) -> Any:  # noqa: ANN401
    """Return how a job with a limited *body* ended; what its thread reports goes to *ends*."""
    owner = object()

    def trace() -> object:
        try:
            value = call_within(seconds, LateError, body, owner=owner)
        except Exception as error:  # noqa: BLE001 - as Celery's tracer does
            value = error
        if ends is not None:
            ends.append(value)
        return value

    return Job(owner, trace, seconds).run(lambda error: ("taken over", error))


def spin() -> None:
    """Keep the interpreter busy."""
    until = perf_counter() + ENDLESS_SECONDS
    while perf_counter() < until:
        pass


def test_job_runs_in_one_thread_that_is_used_again() -> None:
    """What is kept by thread is there for the whole job, limited or not."""

    def body() -> tuple[int, bool]:
        return threading.get_ident(), current_job() is not None

    found = {run(body, SECONDS) for _ in range(20)}

    assert len(found) == 1
    assert found != {(threading.get_ident(), True)}
    assert current_job() is None


@cuts_a_thread
def test_body_in_python_is_cut_in_its_thread() -> None:
    """The job goes on there with the limit's error: nobody takes it over."""
    ends: list[object] = []
    ended = run(spin, 0.05, ends)

    assert isinstance(ended, LateError)
    assert ends == [ended]


def test_body_that_blocks_is_given_up_and_reports_nothing() -> None:
    """The job ends where it is awaited, in the limit's error; its own thread only cleans up."""
    let_go, ends, seen = threading.Event(), list[object](), list[BaseException]()

    def body() -> None:
        lock = threading.Lock()
        lock.acquire()
        while not let_go.is_set():
            lock.acquire(timeout=1)  # not cut before it is over

    owner = object()

    def trace() -> None:
        try:
            call_within(0.05, LateError, body, owner=owner)
            ends.append("reported")
        except GivenUp as given_up:
            seen.append(given_up)
            raise

    what, error = Job(owner, trace, 0.05).run(lambda error: ("taken over", error))
    assert what == "taken over"
    assert isinstance(error, LateError)
    assert helper_threads.abandoned == 1
    let_go.set()
    wait_until(lambda: seen, SECONDS, "it has ended")
    assert not ends


def test_call_inside_that_is_left_behind_lets_the_job_go_on() -> None:
    """A limit of others inside the job is theirs: the body continues at its end."""
    let_go = threading.Event()

    def body() -> str:
        with pytest.raises(InnerError):
            call_within(0.05, InnerError, let_go.wait, (ENDLESS_SECONDS,))
        return "went on"

    assert run(body, SECONDS) == "went on"
    let_go.set()


def test_call_inside_does_not_outlast_the_limit_of_the_job() -> None:
    """Of two limits the one that ends first cuts, also if the other has a thread of its own."""
    let_go, began = threading.Event(), perf_counter()

    def body() -> None:
        call_within(SECONDS, InnerError, let_go.wait, (ENDLESS_SECONDS,))

    found = run(body, 0.1)
    let_go.set()
    # On a busy machine the job's thread may be given up before it has seen the end.
    assert isinstance(found[1] if isinstance(found, tuple) else found, LateError)
    assert perf_counter() - began < ENDLESS_SECONDS


@pytest.mark.parametrize(
    ("seconds", "inner", "ended"), [(SECONDS, 0.05, "went on"), (0.1, SECONDS, LateError)]
)
def test_call_inside_that_waits_on_a_connection_is_hung_up(
    seconds: float, inner: float, ended: object
) -> None:
    """Whichever limit ends first: the job's own thread goes on, and no other was needed."""
    ours, theirs = socket.socketpair()

    def body() -> str:
        with pytest.raises(InnerError):
            call_within(inner, InnerError, ours.recv, (1,), file=ours.fileno())
        return "went on"

    with ours, theirs:
        found = run(body, seconds)
    # On a busy machine the job's thread may be given up before it has seen the end.
    found = found[1] if isinstance(found, tuple) else found
    assert (type(found) if isinstance(found, Exception) else found) == ended


def test_job_ends_once_whenever_its_limit_meets_its_end() -> None:
    """It reports or is taken over, never both; no cut reaches what comes after the call."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)

    def crowd(seed: int) -> None:
        dice = random.Random(seed)  # noqa: S311 - to vary limits
        for number in range(ROUNDS):
            ends: list[object] = []

            def work(number: int = number) -> int:
                for _ in range(50):
                    number += 1
                return number

            ended = run(work, dice.uniform(1e-5, 5e-4), ends)
            if isinstance(ended, tuple):
                assert not ends
            else:
                assert ends == [ended]
                assert ended == number + 50 or isinstance(ended, LateError)

    try:
        with ThreadPoolExecutor(4) as pool:
            for done in [pool.submit(crowd, seed) for seed in range(4)]:
                done.result(4 * SECONDS)
    finally:
        sys.setswitchinterval(before)


def test_error_of_a_job_is_raised_where_it_is_awaited() -> None:
    """What escapes a job's trace is the pool's to handle."""
    owner = object()

    def trace() -> None:
        raise SystemExit(3)

    with suppress(LateError), pytest.raises(SystemExit):
        Job(owner, trace, None).run(lambda error: error)
