"""A cut leaves no lock taken: whatever needs the lock later would wait for it for ever."""

import dis
import io
import logging
import queue
import random
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from time import perf_counter
from types import CodeType, FunctionType
from typing import Any

import pytest

from resilience.budget import call_within, timer
from resilience.budget.interrupts import Interruptible
from resilience.budget.locks import lock_at_stake
from resilience.budget.threads import AbandonedError, helper_threads
from resilience.budget.timer import Cut
from resilience.testing.waiting import wait_until
from tests.timing import no_later_than
from tests.tracing import cuts_a_thread

SECONDS = 60.0
AGAIN_SECONDS = 0.02
CUT_SECONDS = 0.0002, 0.001
ROUNDS = [1, pytest.param(40, marks=pytest.mark.long)]


class LateError(Exception):
    """What the limit of a test raises."""


class Target:
    """Something with a lock.

    Attributes:
        work: Takes and gives back the lock for ever.
        locks: What must be free afterwards.
    """

    def __init__(self, work: Callable[[], None], *locks: Any) -> None:  # noqa: ANN401 - of any kind
        """Describe work that takes *locks*."""
        self.work = work
        self.locks = locks

    def is_free(self) -> bool:
        """Tell whether no thread holds a lock.

        Asked of two threads: one that holds an RLock takes it again, and a new thread may have the
        number of one that ended with the lock.
        """
        free = [_is_free(lock) for lock in self.locks]
        asking = threading.Thread(target=lambda: free.extend(map(_is_free, self.locks)))
        asking.start()
        asking.join()
        return all(free)


def _is_free(lock: Any) -> bool:  # noqa: ANN401 - of any kind
    if not lock.acquire(blocking=False):
        return False
    lock.release()
    return True


def logger_of(handler: logging.Handler) -> logging.Logger:
    """Return a logger that nothing else uses."""
    logger = logging.Logger("test")  # noqa: LOG001 - that nothing else finds
    logger.addHandler(handler)
    return logger


def logs() -> Target:
    """Log as fast as it goes."""
    handler = logging.StreamHandler(io.StringIO())
    logger = logger_of(handler)

    def work() -> None:
        while True:
            logger.error("%s", 7)
            handler.stream.seek(0)

    return Target(work, handler.lock)


def passes_a_queue() -> Target:
    """Put and get."""
    items: queue.Queue[int] = queue.Queue()

    def work() -> None:
        while True:
            items.put(7)
            items.get()

    return Target(work, items.mutex)


def acquires() -> Target:
    """Take a lock without a block, as much code does."""
    lock = threading.Lock()

    def work() -> None:
        while True:
            lock.acquire()
            try:
                threading.get_ident()
            finally:
                lock.release()

    return Target(work, lock)


# So many cuts that hardly any run would miss a fault: this share of them left the lock taken.
one_in_thirty = pytest.param(logs, 400, id="one in thirty")
often = [
    pytest.param(passes_a_queue, 40, id="one in four"),
    pytest.param(acquires, 20, id="two in three"),
]


@pytest.mark.parametrize(("make", "cuts"), [one_in_thirty, *often])
@pytest.mark.parametrize("rounds", ROUNDS)
def test_lock_is_free_after_many_cuts_in_the_main_thread(
    make: Callable[[], Target], cuts: int, rounds: int
) -> None:
    """One in thirty cuts of a call that does nothing but log left the handler's lock taken."""
    target, moments = make(), random.Random(7)  # noqa: S311 - moments, no secrets

    for _ in range(cuts * rounds):
        with pytest.raises(LateError):
            call_within(moments.uniform(*CUT_SECONDS), LateError, target.work)
        assert target.is_free()


@pytest.mark.parametrize(("make", "cuts"), often)
@pytest.mark.parametrize("rounds", ROUNDS)
@cuts_a_thread
def test_lock_is_free_after_many_cuts_from_another_thread(
    make: Callable[[], Target], cuts: int, rounds: int
) -> None:
    """So it was where a call runs in a thread of its own, or in that of its job."""
    target = make()

    for _ in range(cuts * rounds):
        cut_in_a_thread(target.work)
        assert target.is_free()


def cut_in_a_thread(work: Callable[[], None]) -> None:
    """Run *work* in a thread and cut it until it ends."""
    limited, begun = Interruptible(1.0, AbandonedError), threading.Event()

    def call() -> None:
        begun.set()
        with pytest.raises((Cut, RuntimeError)):
            limited.call(work)

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    assert begun.wait(SECONDS)
    while not limited.ended:
        limited.cut()
        thread.join(AGAIN_SECONDS)
    thread.join()


@cuts_a_thread
def test_thread_cut_while_it_waits_to_log_does_not_keep_the_lock() -> None:
    """It gets the lock long after its cut, and would end with it."""
    handler = logging.StreamHandler(io.StringIO())
    logger, lock = logger_of(handler), handler.lock
    ended: list[type[BaseException]] = []

    def log() -> None:
        with pytest.raises(LateError) as caught:
            call_within(0.05, LateError, logger.error, ["from the thread"])
        ended.append(caught.type)

    handler.acquire()
    try:
        thread = threading.Thread(target=log)
        thread.start()
        thread.join(SECONDS)
    finally:
        handler.release()
    wait_until(lambda: not helper_threads.abandoned, SECONDS, "the call that was left behind ends")
    handler.createLock()  # the process takes it as it ends, and would hang if this test fails

    assert ended == [LateError]
    assert Target(log, lock).is_free()


def test_main_thread_that_waits_to_log_is_cut() -> None:
    """What waits for a lock has not taken it; only for a moment a cut waits with it."""
    handler = logging.StreamHandler(io.StringIO())
    logger = logger_of(handler)
    taken, over = threading.Event(), threading.Event()

    def hold() -> None:
        with handler.lock:  # type: ignore[union-attr] # it has one
            taken.set()
            over.wait(SECONDS)

    thread = threading.Thread(target=hold)
    thread.start()
    assert taken.wait(SECONDS)
    with no_later_than(SECONDS / 2), pytest.raises(LateError):
        call_within(0.05, LateError, logger.error, ["from the main thread"])
    over.set()
    thread.join()

    assert Target(hold, handler.lock).is_free()


def a_lock_of_its_own(lock: threading.Lock) -> None:
    """Take and give back a lock."""
    lock.acquire()
    try:
        threading.get_ident()
    finally:
        lock.release()


def a_lock_for_a_block(lock: threading.Lock) -> None:
    """Take a lock for a block."""
    with lock:
        threading.get_ident()


def a_lock_that_is_polled(lock: threading.Lock) -> None:
    """Try to take a lock."""
    while not lock.acquire(timeout=0.1):
        threading.get_ident()
    lock.release()


def test_alarm_that_waits_for_a_lock_rings_until_it_is_heard(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One that rings just before the thread begins to wait in C code does not end that wait."""
    monkeypatch.setattr(timer, "MOMENTS", 10**9)
    lock, repeats = threading.Lock(), list[float]()
    lock.acquire()

    def release_when_it_rings() -> None:
        give_up = perf_counter() + SECONDS / 10
        while perf_counter() < give_up and not repeats:
            repeats.extend(one for one in signal.getitimer(signal.ITIMER_REAL)[1:] if one)
        lock.release()

    def take() -> None:
        lock.acquire()

    with ThreadPoolExecutor(1) as pool, suppress(LateError):
        pool.submit(release_when_it_rings)
        call_within(0.01, LateError, take)

    assert repeats


@pytest.mark.parametrize(
    ("function", "places"),
    [
        (logging.Handler.acquire, ["acquire"]),
        (logging.Handler.release, ["RESUME"]),
        (threading.Condition.__enter__, ["__enter__"]),
        (threading.Condition.__exit__, ["RESUME"]),
        (a_lock_of_its_own, ["acquire"]),
        (a_lock_for_a_block, []),
        (a_lock_that_is_polled, []),
    ],
)
def test_lock_is_at_stake_once_it_is_taken_and_until_it_is_given_back(
    function: FunctionType, places: list[str]
) -> None:
    """Nowhere else does a cut wait, or a call that is cut would go on."""
    assert at_stake(function.__code__) == places


def at_stake(code: CodeType) -> list[str]:
    """Return where a lock is at stake: the name of what is called there, or the instruction's."""
    found, called = [], ""
    for one in dis.get_instructions(code):
        if one.opname.startswith("LOAD_") and isinstance(one.argval, str):
            called = one.argval
        if one.opname in {"RESUME", "CALL", "CALL_FUNCTION_EX"}:
            found += [called or one.opname] * lock_at_stake(code, one.offset)
    return found
