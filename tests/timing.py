"""Tests that something ends in time, on a machine that may be busy."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread
from time import perf_counter

STEP_SECONDS = 0.01


@contextmanager
def ends_before(control: Callable[[], object]) -> Iterator[None]:
    """Fail the test unless the block ends before *control*.

    The control does the same work as the block and takes the longest that the block may. It begins
    at the same moment in another thread, so that a busy machine makes both of them late.
    """
    ended: list[float] = []

    def run() -> None:
        control()
        ended.append(perf_counter())

    thread = Thread(target=run, daemon=True)
    thread.start()
    yield
    now = perf_counter()
    thread.join()
    assert ended, "the control failed"
    assert now <= ended[0], f"ended {now - ended[0]:.3f} s after the control"


@contextmanager
def no_later_than(seconds: float) -> Iterator[None]:
    """Fail the test if the block takes longer than a thread that waits for *seconds* beside it.

    The thread waits in steps of 10 ms. What wakes it late on a busy machine does so at each step,
    as it does at each step of the block: both are late.
    """
    over, late = Event(), Event()

    def wait() -> None:
        if not any(over.wait(STEP_SECONDS) for _ in range(round(seconds / STEP_SECONDS))):
            late.set()

    thread = Thread(target=wait, daemon=True)
    thread.start()
    yield
    over.set()
    thread.join()
    assert not late.is_set(), f"took longer than a wait of {seconds:g} s"
