"""Where a call can be cut, and where it cannot: the table of `resilience/budget/limits.py`."""

import asyncio
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from time import perf_counter
from typing import Any

import pytest

from resilience import BudgetExceededError, TimeoutBudget
from resilience.budget import call_within
from resilience.budget.threads import helper_threads
from resilience.testing.process import import_path, inherited_env
from resilience.testing.waiting import wait_until
from tests.tracing import cuts_a_thread
from tests.unit import greenlets
from tests.unit.stopwatch import elapsed

ENDLESS_SECONDS = 5.0
"""How long a call takes that nothing cuts: long enough to notice, short enough to end."""
SECONDS = 120


class LateError(Exception):
    """What the limit of a test raises."""


def in_main_thread(call: Callable[[], Any]) -> Any:  # noqa: ANN401 - what it returns
    """Return what *call* returns or raises here."""
    return call()


def in_a_thread(call: Callable[[], Any]) -> Any:  # noqa: ANN401 - what it returns
    """Return what *call* returns or raises in a thread of its own."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(call).result()


def in_an_event_loop(call: Callable[[], Any]) -> Any:  # noqa: ANN401 - what it returns
    """Return what *call* returns or raises in a coroutine that it blocks."""

    async def block() -> Any:  # noqa: ANN401 - what it returns
        return call()

    return asyncio.run(block())


class Blocking:
    """What takes too long, until the test lets it go: a call in another thread is left behind."""

    def __init__(self) -> None:
        """Block from now on."""
        self._silent, self._ours = socket.socketpair()
        self._ours.settimeout(ENDLESS_SECONDS)
        self._ended = threading.Event()

    def wait(self) -> None:
        """Wait on a lock that nobody frees."""
        self._ended.wait(ENDLESS_SECONDS)

    def spin(self) -> None:
        """Keep the interpreter busy."""
        deadline = perf_counter() + ENDLESS_SECONDS
        while perf_counter() < deadline:
            pass

    def read(self) -> None:
        """Wait for bytes that do not come."""
        self._ours.recv(1)

    def swallow(self) -> None:
        """Handle every `Exception` and go on, as many a client's receive loop does."""
        for _ in range(int(ENDLESS_SECONDS / 0.1)):
            with suppress(Exception):
                time.sleep(0.1)  # noqa: TID251 - sleeping is what is cut

    def end(self) -> None:
        """Let go what waits."""
        self._ended.set()
        self._silent.close()
        wait_until(lambda: not helper_threads.abandoned, SECONDS, "no call is left behind")
        self._ours.close()


@pytest.fixture
def blocking() -> Iterator[Blocking]:
    """Calls that take too long; none of them is left behind after the test."""
    made = Blocking()
    yield made
    made.end()


@pytest.fixture(params=[in_main_thread, in_a_thread, in_an_event_loop])
def where(request: pytest.FixtureRequest) -> Callable[[Callable[[], Any]], Any]:
    """Each place where synchronous code runs."""
    place: Callable[[Callable[[], Any]], Any] = request.param
    return place


@pytest.mark.parametrize("block", [Blocking.wait, Blocking.spin, Blocking.read, Blocking.swallow])
def test_call_is_cut(
    where: Callable[..., Any], block: Callable[[Blocking], None], blocking: Blocking
) -> None:
    """Whatever blocks, its caller has the limit's error within a moment of the limit."""

    def cut() -> float:
        with pytest.raises(LateError):
            call_within(0.1, LateError, block, (blocking,))
        return perf_counter()

    began = perf_counter()

    assert 0.1 <= where(cut) - began < 2


def test_call_in_time_is_as_if_there_were_no_limit(where: Callable[..., Any]) -> None:
    """Arguments go in; the value, or the very error, comes out."""
    error = OSError("gone")

    def fail() -> None:
        raise error

    assert where(lambda: call_within(SECONDS, LateError, dict, ([("a", 1)],), {"b": 2})) == {
        "a": 1,
        "b": 2,
    }
    with pytest.raises(OSError, match="gone") as caught:
        where(lambda: call_within(SECONDS, LateError, fail))
    assert caught.value is error


@pytest.mark.parametrize("seconds", [0.0, -1.0])
def test_call_without_any_time_is_not_begun(where: Callable[..., Any], seconds: float) -> None:
    """No time left is no missing limit: the error comes at once, and nothing was called."""
    called: list[int] = []

    with pytest.raises(LateError):
        where(lambda: call_within(seconds, LateError, called.append, (1,)))

    assert not called


@pytest.mark.parametrize(("outer", "inner"), [(0.1, 30), (30, 0.1)])
def test_nested_limit_that_ends_first_cuts(
    where: Callable[..., Any], outer: float, inner: float, blocking: Blocking
) -> None:
    """Of two limits the sooner one's error comes, whichever is the outer one."""

    def block() -> object:
        return call_within(inner, LateError if inner < outer else KeyError, blocking.wait)

    def cut() -> None:
        with pytest.raises(LateError):
            call_within(outer, KeyError if inner < outer else LateError, block)
        blocking.end()

    assert elapsed(lambda: where(cut)) < ENDLESS_SECONDS


def test_call_that_runs_an_event_loop_is_cut_in_a_task_group(blocking: Blocking) -> None:
    """A job may run asyncio inside: the limit's own error comes out, not a group around another."""

    async def spin_in_a_group() -> None:
        async def spinning() -> None:
            blocking.spin()

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(spinning())

    def run() -> None:
        asyncio.run(spin_in_a_group())

    with pytest.raises(LateError):
        call_within(0.1, LateError, run)


@cuts_a_thread
def test_code_that_is_left_behind_in_a_thread_is_interrupted() -> None:
    """It does not keep the interpreter busy after its caller has gone on."""
    let_go = threading.Event()

    def spin() -> None:
        while not let_go.is_set():
            pass

    try:
        with pytest.raises(LateError):
            in_a_thread(lambda: call_within(0.05, LateError, spin))
        wait_until(lambda: not helper_threads.abandoned, SECONDS, "it has ended")
    finally:
        let_go.set()


def test_coroutine_is_cut_where_it_awaits() -> None:
    """What a coroutine awaits is cancelled; code that does not await runs to its end, late."""

    async def sleep_well() -> None:
        await asyncio.sleep(ENDLESS_SECONDS)

    async def block_the_loop() -> str:
        threading.Event().wait(0.3)
        return "late"

    async def spin_then_await() -> None:
        threading.Event().wait(0.3)
        await asyncio.sleep(ENDLESS_SECONDS)

    for cut in (sleep_well, spin_then_await):
        with pytest.raises(BudgetExceededError):
            asyncio.run(TimeoutBudget(0.1).arun(cut))
    assert asyncio.run(TimeoutBudget(0.1).arun(block_the_loop)) == "late"


def test_limits_leave_no_trace(where: Callable[..., Any]) -> None:
    """Cut or not, neither a signal handler nor a timer nor a thread is left behind."""

    def traces() -> tuple[object, int]:
        threads = [one.name for one in threading.enumerate()]
        return signal.getsignal(signal.SIGALRM), threads.count("resilience-helper")

    def call(times: int) -> None:
        for _ in range(times):
            call_within(SECONDS, LateError, str)
            with pytest.raises(LateError):
                call_within(0.001, LateError, swallow_moments)
        wait_until(lambda: not helper_threads.abandoned, SECONDS, "no call is left behind")

    def swallow_moments() -> None:
        for _ in range(1000):
            threading.Event().wait(0.005)

    where(lambda: call(1))
    handler, threads = traces()
    where(lambda: call(20))

    wait_until(lambda: traces()[1] <= threads + 1, SECONDS, "the helper threads have ended")
    assert signal.getsignal(signal.SIGALRM) is handler


@pytest.fixture(scope="module")
def told() -> dict[str, Any]:
    """What became of each call of `greenlets.py`, in a process that gevent has patched."""
    assert greenlets.__file__
    done = subprocess.run(  # noqa: S603 - our own interpreter
        [sys.executable, "-m", "gevent.monkey", greenlets.__file__],
        env=inherited_env({"PYTHONPATH": import_path()}),
        capture_output=True,
        timeout=SECONDS,
        check=True,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("block", ["sleep", "read", "swallow"])
def test_greenlet_is_cut_where_it_waits(told: dict[str, Any], block: str) -> None:
    """Under gevent, what waits is cut, whatever it handles itself, and others run meanwhile."""
    ended, seconds = told[block]

    assert ended == "LateError"
    assert 0.1 <= seconds < 1


def test_greenlet_in_time_is_as_if_there_were_no_limit(told: dict[str, Any]) -> None:
    """Its time begins with the call, however long nobody else could run before."""
    assert told["arguments"] == {"a": 1, "b": 2}
    assert told["busy before"] == "returned"


def test_greenlet_that_keeps_what_cuts_it_is_cut_again(told: dict[str, Any]) -> None:
    """Its caller has the limit's error in the end, and so has whoever asks what was kept."""
    ended, seconds = told["keep"]

    assert ended == "LateError"
    assert 0.1 <= seconds < 1
    assert told["kept"] == ["LateError"] * 2


def test_greenlet_is_none_where_gevent_is_only_imported() -> None:
    """What it has not patched lets nobody else run, and is cut as it would be without it."""
    done = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-m", greenlets.__name__, "only-imported"],
        env=inherited_env({"PYTHONPATH": import_path()}),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )

    assert done.stdout == "LateError", done.stderr


def test_greenlet_that_does_not_wait_is_not_cut(told: dict[str, Any]) -> None:
    """Nothing can cut a spinning greenlet: it ends by itself, late, or is cut once it waits."""
    assert told["spin"][0] == "returned"
    assert told["spin"][1] >= greenlets.SPIN_SECONDS
    assert told["spin, then sleep"][0] == "LateError"
    assert greenlets.SPIN_SECONDS <= told["spin, then sleep"][1] < 1


def test_greenlets_have_limits_of_their_own(told: dict[str, Any]) -> None:
    """Of greenlets that run at once, and of limits in limits, each is cut by its own."""
    assert told["at once"] == ["LateError", "returned", "LateError", "returned"]
    assert told["outer"][0] == told["inner"][0] == "LateError"
    assert told["no time"][0] == "LateError"
    assert told["budget"] == ["default", "cut", "ok"]
    assert told["handler"] == str(signal.SIG_DFL)
    assert told["threads"] == 0


def test_call_in_a_child_that_a_thread_forked_is_cut_by_its_main_thread() -> None:
    """The thread that forked is the main one there, and no helper thread is needed."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.unit.forker"],
        env=inherited_env({"PYTHONPATH": import_path()}),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )

    assert done.stdout == "cut with 1 thread\n", done.stderr
