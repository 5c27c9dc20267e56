"""An app whose bodies handle, lose or store whatever is raised in them, the cut of a limit too."""

import asyncio
import contextlib
import ctypes
import sqlite3
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from time import perf_counter
from typing import Any

from celery import Celery

from resilience import Dependency, Resilience, ResilientTask, TimeoutBudget
from resilience.budget.threads import helper_threads
from resilience.events import log_event
from resilience.testing.waiting import wait_until

TIMEOUT_SECONDS = 0.5
BODY_SECONDS = 6.0
"""How long a body takes that nothing ends; every one begins with work that swallows the cut."""
PIECE_SECONDS = 2.0
STEP_SECONDS = 0.005

app = Celery("swallowing", task_cls=ResilientTask)
alpha = Dependency("alpha", timeout=TIMEOUT_SECONDS, breaker=None)
Resilience(app, dependencies=[alpha], listeners=[log_event])


def work(seconds: float = PIECE_SECONDS) -> None:
    """Work for so long, in steps that let signals, greenlets and other threads in."""
    until = perf_counter() + seconds
    while perf_counter() < until:
        time.sleep(STEP_SECONDS)  # noqa: TID251 - the time that is cut


def pieces() -> Iterator[int]:
    """Count the pieces of a body."""
    return iter(range(round(BODY_SECONDS / PIECE_SECONDS)))


def bare_except() -> None:
    """Go on after every error, as a consumer's loop does."""
    for _ in pieces():
        try:
            work()
        except:  # noqa: E722, S112 - what people write
            continue


def suppressed() -> None:
    """Do the same with `contextlib`."""
    for _ in pieces():
        with contextlib.suppress(BaseException):
            work()


def future() -> None:
    """Store the error in a future that nobody asks, as an executor does."""
    for _ in pieces():
        stored: Future[None] = Future()
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - as in concurrent.futures.thread
            stored.set_exception(error)


def background_task() -> None:
    """Let asyncio store the error in a busy background task, which the main one does not await."""

    async def busy() -> None:
        for _ in range(200):
            work(0.01)
            await asyncio.sleep(0)

    async def main() -> None:
        tasks = [asyncio.create_task(busy())]
        for _ in range(300):
            work(0.01)
            await asyncio.sleep(0.01)
        del tasks

    asyncio.run(main())


def loop_callback() -> None:
    """Let asyncio log what a callback of its loop raises."""

    async def main() -> None:
        for _ in pieces():
            asyncio.get_running_loop().call_soon(work)
            await asyncio.sleep(0.01)

    asyncio.run(main())


def generator() -> None:
    """Work in a generator that goes on after it was told to close."""

    def endless() -> Iterator[int]:
        for number in pieces():
            try:
                yield number
                work()
            except BaseException:  # noqa: BLE001, S112 - what people write
                continue

    for _ in endless():
        pass


def sqlite_callback() -> None:
    """Work in a callback of SQLite, which ignores what that raises."""
    database = sqlite3.connect(":memory:")
    database.create_function("work", 0, work)
    for _ in pieces():
        with contextlib.suppress(sqlite3.OperationalError):
            database.execute("SELECT work()")
    database.close()


def c_callback() -> None:
    """Work in a callback of C code, which ignores what that raises."""
    callback = ctypes.CFUNCTYPE(None)(work)
    for _ in pieces():
        callback()


def finaliser() -> None:
    """Work in finalisers, whose errors Python ignores."""

    class Slow:
        def __del__(self) -> None:
            work(2 * TIMEOUT_SECONDS)

    for _ in pieces():
        Slow()
        work()


BODIES: dict[str, Callable[[], None]] = {
    one.__name__: one
    for one in (
        bare_except,
        suppressed,
        future,
        background_task,
        loop_callback,
        generator,
        sqlite_callback,
        c_callback,
        finaliser,
    )
}


@app.task(shared=False, dependency="alpha")
def guarded(how: str) -> str:
    """Run a body under the timeout of its dependency."""
    BODIES[how]()
    return "ran to its end"


@app.task(shared=False)
def whole(how: str) -> str:
    """Run a body under nothing but the budget of its job."""
    BODIES[how]()
    return "ran to its end"


@app.task(shared=False)
def shared_out(how: str) -> dict[str, Any]:
    """Run a body under its share of a budget, and then another one."""
    began = perf_counter()
    budget = TimeoutBudget(20)
    budget.run(BODIES[how], seconds=TIMEOUT_SECONDS, default=None)
    took = perf_counter() - began
    budget.run(str)
    return {"took": took, "ended": [one.ended for one in budget.spent]}


@app.task(shared=False)
def left_behind(seconds: float) -> int:
    """Return how many calls that were given up still run here after *seconds*, 0 if none do."""
    with contextlib.suppress(AssertionError):
        wait_until(lambda: not helper_threads.abandoned, seconds, "they have ended")
    return helper_threads.abandoned


_stored: list[Future[None]] = []


@app.task(shared=False, dependency="alpha")
def store_the_cut() -> None:
    """Store the cut of this job where a later one finds it."""
    stored: Future[None] = Future()
    _stored.append(stored)
    try:
        work()
    except BaseException as error:
        stored.set_exception(error)
        raise


@app.task(shared=False, dependency="alpha")
def raise_what_is_stored() -> None:
    """Ask for what an earlier job stored."""
    _stored.pop().result()
