"""What becomes of a cut on its way out of a call."""

import subprocess
import sys
import threading
import time

import pytest

from resilience.budget import call_within
from resilience.testing.process import import_path, inherited_env

SECONDS = 60
ENDLESS_SECONDS = 5.0
TRACED = """
import sys, threading
from time import perf_counter
from resilience.budget import call_within

def trace(*_):
    return trace

def wait():
    blocked.acquire(timeout=20)

def limited():
    began = perf_counter()
    try:
        call_within(0.1, TimeoutError, wait)
    except TimeoutError:
        print(perf_counter() - began)
    blocked.release()

blocked = threading.Lock()
blocked.acquire()
threading.settrace(trace)
thread = threading.Thread(target=limited)
thread.start()
thread.join()
"""
COLLECTS = """
import gc, threading, time
from resilience.budget.interrupts import Interruptible
from resilience.budget.timer import Cut

def start_threads():
    while True:
        thread = threading.Thread(target=int)
        thread.start()
        thread.join()

def spin(limited, begun):
    def work():
        begun.set()
        while True:
            pass
    try:
        limited.call(work)
    except Cut:
        pass

for _ in range(8):
    threading.Thread(target=start_threads, daemon=True).start()
gc.callbacks.append(lambda *_: time.sleep(0))
gc.set_threshold(1)
for _ in range({rounds}):
    limited, begun = Interruptible(1.0, TimeoutError), threading.Event()
    thread = threading.Thread(target=spin, args=(limited, begun))
    thread.start()
    begun.wait()
    while not limited.ended:
        limited.cut()
        thread.join(0.05)
print(gc.isenabled())
"""


class LateError(Exception):
    """What the limit of a test raises."""


def test_cut_that_a_lock_turns_into_an_error_of_its_own_is_a_cut() -> None:
    """A `Condition` gives back its lock while it waits; if it cannot, it raises RuntimeError."""

    def wait() -> None:
        lock = threading.Lock()
        with lock:
            lock.release()
            time.sleep(ENDLESS_SECONDS)  # noqa: TID251 - sleeping is what is cut

    with pytest.raises(LateError) as caught:
        call_within(0.05, LateError, wait)

    assert isinstance(caught.value.__cause__, RuntimeError)


def test_error_that_a_call_raises_after_its_cut_is_its_own() -> None:
    """Code that handles the cut may raise what steers its job."""

    def wait() -> None:
        try:
            time.sleep(ENDLESS_SECONDS)  # noqa: TID251 - sleeping is what is cut
        except BaseException:  # noqa: BLE001 - as such code does
            raise KeyError("own")  # noqa: B904, EM101 - as such code does

    with pytest.raises(KeyError, match="own"):
        call_within(0.05, LateError, wait)


def test_call_in_a_thread_is_left_in_time_under_a_tracer() -> None:
    """CPython 3.11 goes in circles in a traced thread while another is to be cut in C code."""
    assert 0.1 <= float(_output(TRACED)) < 10


@pytest.mark.parametrize("rounds", [8, pytest.param(50, marks=pytest.mark.long)])
def test_cut_while_garbage_is_collected_does_not_stop_the_process(rounds: int) -> None:
    """CPython 3.11 never runs again if a look at threads collects garbage and others start.

    It did so in more than half of the rounds.
    """
    assert _output(COLLECTS.format(rounds=rounds)) == "True\n"


def _output(program: str) -> str:
    env = inherited_env({"PYTHONPATH": import_path()})
    return subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-c", program],
        # Where coverage is measured not there: tracing and collecting all the time take minutes.
        env={name: value for name, value in env.items() if not name.startswith("COVERAGE_")},
        capture_output=True,
        text=True,
        check=True,
        timeout=SECONDS,
    ).stdout
