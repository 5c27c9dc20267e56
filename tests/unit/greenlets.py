"""Calls with limits in a process that gevent has patched; prints as JSON what became of each.

Run by `python -m gevent.monkey`; where its argument is `only-imported`, gevent patches nothing.
"""

import importlib
import json
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from time import perf_counter

from resilience import TimeoutBudget
from resilience.budget import call_within
from resilience.budget.timer import Cut

ENDLESS_SECONDS = 5.0
SPIN_SECONDS = 0.3


class LateError(Exception):
    """What the limits raise."""


def sleep(seconds: float = ENDLESS_SECONDS) -> None:
    """Sleep in one go."""
    time.sleep(seconds)  # noqa: TID251 - sleeping is what is cut


def spin() -> None:
    """Keep all greenlets from running."""
    deadline = perf_counter() + SPIN_SECONDS
    while perf_counter() < deadline:
        pass


def spin_then_sleep() -> None:
    """Let the others run again too late."""
    spin()
    sleep()


def read() -> None:
    """Wait for bytes that do not come."""
    silent, ours = socket.socketpair()
    with silent, ours:
        ours.settimeout(ENDLESS_SECONDS)
        ours.recv(1)


def swallow() -> None:
    """Handle every `Exception` and go on."""
    for _ in range(int(ENDLESS_SECONDS)):
        with suppress(Exception):
            sleep(1)


def keep(cuts: list[Cut]) -> None:
    """Keep what cuts it, as a future does, go on, and return in the end."""
    for _ in range(2):
        try:
            sleep()
        except Cut as cut:
            cuts.append(cut)


def within(seconds: float, function: Callable[..., object], *args: object) -> tuple[str, float]:
    """Return how a call under a limit ended, and how long it took."""
    began = perf_counter()
    try:
        call_within(seconds, LateError, function, args)
    except LateError as error:
        return type(error).__name__, perf_counter() - began
    return "returned", perf_counter() - began


def busy_before() -> str:
    """Return how a call ended that had time, after one that kept all greenlets from running."""
    spin()
    return within(SPIN_SECONDS - 0.05, sleep, 0.01)[0]


def at_once() -> list[str]:
    """Return how calls ended that run at the same time."""
    limits = (0.05, 5.0, 0.1, 5.0)
    found = [""] * len(limits)

    def call(number: int) -> None:
        found[number], _ = within(limits[number], sleep, 0.2)

    threads = [threading.Thread(target=call, args=(number,)) for number in range(len(limits))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def under_a_budget() -> list[str]:
    """Return what a budget makes of a call that takes too long, and of the next one."""
    with TimeoutBudget(2) as budget:
        default = budget.run(sleep, allocation=0.05, default="default")
        budget.run(sleep, 0.01)
    return [default, *(one.ended for one in budget.spent)]


def main() -> None:
    """Call all, and print what became of them."""
    before, cuts = len(threading.enumerate()), list[Cut]()
    told = {
        "sleep": within(0.1, sleep),
        "read": within(0.1, read),
        "swallow": within(0.1, swallow),
        "keep": within(0.1, keep, cuts),
        "kept": [type(cut.error()).__name__ for cut in cuts],
        "spin": within(0.1, spin),
        "spin, then sleep": within(0.1, spin_then_sleep),
        "busy before": busy_before(),
        "arguments": call_within(5.0, LateError, dict, ([("a", 1)],), {"b": 2}),
        "outer": within(0.1, call_within, 5.0, KeyError, sleep),
        "inner": within(5.0, call_within, 0.1, LateError, sleep),
        "no time": within(0.0, sleep),
        "at once": at_once(),
        "budget": under_a_budget(),
        "handler": str(signal.getsignal(signal.SIGALRM)),
        "threads": len(threading.enumerate()) - before,
    }
    json.dump(told, sys.stdout)


def without_patches() -> None:
    """Print what becomes of a call where gevent is imported and patches nothing."""
    importlib.import_module("gevent.monkey")
    sys.stdout.write(within(0.1, sleep)[0])


if __name__ == "__main__":
    without_patches() if sys.argv[1:] == ["only-imported"] else main()
