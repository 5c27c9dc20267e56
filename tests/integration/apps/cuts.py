"""An app whose tasks block in several ways under budgets, and say what that left behind.

Each test of a pool starts a worker of it with one process, thread or greenlet.
"""

import signal
import socket
import threading
import time
from collections.abc import Callable
from time import perf_counter
from typing import Any

from celery import Celery

from resilience import Dependency, Resilience, ResilientTask, TimeoutBudget, fallback
from resilience.budget.threads import helper_threads
from resilience.events import log_event
from resilience.testing.waiting import wait_until

HANG_SECONDS = 8.0
SPIN_SECONDS = 1.5
CUT_SECONDS = 0.3
SECONDS = 120

app = Celery("cuts", task_cls=ResilientTask)
Resilience(app, dependencies=[Dependency("alpha", timeout=None)], listeners=[log_event])
_silent: list[socket.socket] = []


def sleep() -> None:
    """Sleep in one go."""
    time.sleep(HANG_SECONDS)  # noqa: TID251 - sleeping is what is cut


def spin() -> None:
    """Keep the interpreter busy, for long enough to notice."""
    deadline = perf_counter() + SPIN_SECONDS
    while perf_counter() < deadline:
        pass


def read() -> None:
    """Wait for bytes that do not come, until `let_go`."""
    silent, ours = socket.socketpair()
    _silent.append(silent)
    ours.settimeout(HANG_SECONDS)
    try:
        ours.recv(1)
    finally:
        ours.close()


def wait_in_moments() -> None:
    """Wait, and come back to Python now and then, as most clients do."""
    for _ in range(int(HANG_SECONDS / 0.005)):
        threading.Event().wait(0.005)


BLOCKS: dict[str, Callable[[], None]] = {"sleep": sleep, "spin": spin, "read": read}


@app.task(shared=False)
def block(how: str) -> dict[str, Any]:
    """Block under a share of a budget; say how that ended and what came of the next call."""
    began = perf_counter()
    budget = TimeoutBudget(20)
    answer = budget.run(BLOCKS[how], seconds=CUT_SECONDS, default="default")
    took = perf_counter() - began
    budget.run(str)
    return {"answer": answer, "took": took, "ended": [one.ended for one in budget.spent]}


@app.task(shared=False)
def block_whole(how: str) -> str:
    """Block for as long as the job may."""
    BLOCKS[how]()
    return "returned"


@app.task(shared=False, dependency="alpha", fallbacks=[fallback.static("static")])
def block_dependency(how: str) -> str:
    """Block for as long as the job may, with an answer for that case."""
    BLOCKS[how]()
    return "returned"


@app.task(shared=False)
def echo(value: object) -> object:
    """Return *value*."""
    return value


@app.task(shared=False)
def let_go() -> dict[str, int]:
    """Say how many calls were left behind here, let those that read end, and say so again."""
    before = helper_threads.abandoned
    while _silent:
        _silent.pop().close()
    wait_until(lambda: helper_threads.abandoned < max(1, before), SECONDS, "one more has ended")
    return {"before": before, "after": helper_threads.abandoned}


def traces() -> dict[str, Any]:
    """Return what limits in time may leave behind in this process."""
    return {
        "threads": threading.active_count(),
        "handler": str(signal.getsignal(signal.SIGALRM)),
        "timer": signal.getitimer(signal.ITIMER_REAL),
        "abandoned": helper_threads.abandoned,
    }


@app.task(shared=False)
def cut(times: int) -> dict[str, Any]:
    """Cut calls so often, and say what was there before and what is after."""
    _cut()  # which makes the first helper thread, where there are any
    before = traces()
    late = sum(_cut() for _ in range(times))
    wait_until(lambda: not helper_threads.abandoned, SECONDS, "no call is left behind")
    wait_until(
        lambda: threading.active_count() <= before["threads"], SECONDS, "the threads have ended"
    )
    return {"cut": late, "before": before, "after": traces()}


def _cut() -> bool:
    budget = TimeoutBudget(60)
    answer: bool = budget.run(wait_in_moments, seconds=0.001, default=True)
    return answer
