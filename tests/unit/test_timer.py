"""Limits in time: what they cut, and what they leave behind."""

import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from time import perf_counter
from types import FrameType

import pytest

from resilience.budget.timer import Alarm
from tests.unit.stopwatch import elapsed

ENDLESS_SECONDS = 10.0
"""How long a block takes that nothing cuts: long enough to notice, short enough to end."""


class LateError(Exception):
    """What the limit of a test raises."""


@pytest.fixture(autouse=True)
def _alarm_is_put_back() -> Iterator[None]:
    """Give the alarm back to whoever had it, whatever the test did with it."""
    handler = signal.getsignal(signal.SIGALRM)
    left, interval = signal.setitimer(signal.ITIMER_REAL, 0)
    yield
    signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, left, interval)


def spin() -> None:
    """Keep the interpreter busy."""
    deadline = perf_counter() + ENDLESS_SECONDS
    while perf_counter() < deadline:
        pass


def sleep() -> None:
    """Sleep in one go."""
    time.sleep(ENDLESS_SECONDS)  # noqa: TID251 - sleeping is what is cut


def read_a_socket() -> None:
    """Wait for bytes that never come."""
    silent, ours = socket.socketpair()
    with silent, ours:
        ours.settimeout(ENDLESS_SECONDS)
        ours.recv(1)


def wait_for_an_event() -> None:
    """Wait on a lock that nobody frees."""
    threading.Event().wait(ENDLESS_SECONDS)


def wait_for_a_process() -> None:
    """Wait for a child that does not end, and kill it on the way out."""
    command = [sys.executable, "-c", f"import time; time.sleep({ENDLESS_SECONDS})"]
    with subprocess.Popen(command) as child:  # noqa: S603 - our own interpreter
        try:
            child.wait()
        finally:
            child.kill()


def retry_on_error() -> None:
    """Handle every `OSError` and go on, as `socket.create_connection` does between addresses."""
    for _ in range(int(ENDLESS_SECONDS)):
        with suppress(OSError):
            time.sleep(1)  # noqa: TID251 - sleeping is what is cut


def swallow_exceptions() -> None:
    """Handle every `Exception` and go on, as many a client's receive loop does."""
    for _ in range(int(ENDLESS_SECONDS)):
        with suppress(Exception):
            time.sleep(1)  # noqa: TID251 - sleeping is what is cut


@pytest.mark.parametrize(
    "block",
    [
        spin,
        sleep,
        read_a_socket,
        wait_for_an_event,
        wait_for_a_process,
        retry_on_error,
        swallow_exceptions,
    ],
)
def test_time_limit_cuts_the_block_when_its_time_is_up(block: Callable[[], None]) -> None:
    """Whatever the main thread is doing or handling, it stops within a moment."""

    def cut() -> None:
        with pytest.raises(LateError), Alarm(0.1, LateError):
            block()

    assert 0.1 <= elapsed(cut) < 2


def test_time_limit_is_not_lost_in_a_finaliser() -> None:
    """Python ignores what is raised in `__del__`; an alarm that comes there cuts right after it."""

    class Slow:
        """Takes a while to go."""

        def __del__(self) -> None:
            """Be there when the alarm comes."""
            threading.Event().wait(0.3)

    def block() -> None:
        Slow()
        sleep()

    def cut() -> None:
        with pytest.raises(LateError), Alarm(0.1, LateError):
            block()

    assert 0.3 <= elapsed(cut) < 2


def test_time_limit_says_where_the_block_was_cut() -> None:
    """The error's cause is a traceback into the function that took too long."""
    with pytest.raises(LateError) as caught, Alarm(0.05, LateError):
        sleep()

    assert caught.value.__cause__ is not None
    traceback = caught.value.__cause__.__traceback__
    names = []
    while traceback is not None:
        names.append(traceback.tb_frame.f_code.co_name)
        traceback = traceback.tb_next
    assert "sleep" in names


def test_time_limit_never_rings_after_the_block() -> None:
    """A block that ends in time is not followed by an alarm."""
    with Alarm(0.05, LateError):
        pass

    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_time_limit_lets_the_blocks_own_error_through() -> None:
    """An error of the block is raised as it is, and ends the limit."""
    with pytest.raises(KeyError), Alarm(5, LateError):
        raise KeyError

    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_inner_limit_cuts_first_when_it_is_the_shorter_one() -> None:
    """The inner limit's own error ends the inner block only; the outer one goes on."""
    with Alarm(5, LateError):
        with pytest.raises(KeyError), Alarm(0.05, KeyError):
            sleep()
        left, _ = signal.getitimer(signal.ITIMER_REAL)

    assert 2 < left < 5


def test_outer_limit_cuts_an_inner_block_that_may_take_longer() -> None:
    """Nobody stays in a block past an outer limit by declaring a longer one inside it."""

    def cut() -> None:
        with pytest.raises(LateError), Alarm(0.1, LateError), Alarm(5, KeyError):
            sleep()

    assert elapsed(cut) < 2


def test_outer_limit_cuts_through_code_that_handles_the_inner_one() -> None:
    """Handling the error of an inner limit, or any other, does not handle the outer one's."""

    def block() -> None:
        with suppress(Exception), Alarm(5, KeyError):
            sleep()
        sleep()

    def cut() -> None:
        with pytest.raises(LateError), Alarm(0.1, LateError):
            block()

    assert elapsed(cut) < 2


def test_outer_limit_counts_what_the_inner_block_took_to_clean_up() -> None:
    """The outer limit keeps its time while a block that was cut inside it is slow to end."""

    def block() -> None:
        try:
            sleep()
        finally:
            sleep()

    def cut() -> None:
        with pytest.raises(LateError), Alarm(0.2, LateError), Alarm(0.05, KeyError):
            block()

    assert elapsed(cut) < 2


def test_outer_limit_goes_on_after_an_inner_block_that_ended_in_time() -> None:
    """Time spent in inner blocks counts for the outer one: many short ones do not renew it."""

    def block() -> None:
        for _ in range(100):
            with Alarm(0.15, KeyError):
                threading.Event().wait(0.1)

    def cut() -> None:
        with pytest.raises(LateError), Alarm(0.2, LateError):
            block()

    assert elapsed(cut) < 2


def test_time_limit_puts_a_foreign_alarm_back() -> None:
    """A handler and a timer that were there before are there after, with the time that is left."""

    def foreign(_signum: int, _frame: FrameType | None) -> None:
        """Stand for what an application does with SIGALRM."""

    signal.signal(signal.SIGALRM, foreign)
    signal.setitimer(signal.ITIMER_REAL, 60, 7)

    with pytest.raises(LateError), Alarm(0.2, LateError):
        sleep()

    left, interval = signal.getitimer(signal.ITIMER_REAL)
    assert signal.getsignal(signal.SIGALRM) is foreign
    assert 50 < left <= 59.8
    assert interval == 7


def test_time_limit_leaves_nothing_behind_after_200_cuts() -> None:
    """However often it cuts, neither a handler nor a timer piles up."""
    handler = signal.getsignal(signal.SIGALRM)

    for _ in range(200):
        with suppress(LateError), Alarm(0.001, LateError):
            spin()

    assert signal.getsignal(signal.SIGALRM) is handler
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_outer_limit_cuts_on_time_while_an_inner_block_handles_its_cuts() -> None:
    """The limit that ends first leaves to the outer one what is due to it."""

    def swallowing() -> None:
        while True:
            with suppress(Exception):
                try:
                    spin()
                except BaseException as error:
                    if "0.7" in str(error):
                        raise

    def cut() -> None:
        with pytest.raises(KeyError), Alarm(0.7, KeyError), Alarm(0.1, LateError):
            swallowing()

    assert 0.7 <= elapsed(cut) < 2
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_block_that_returns_after_its_cut_ends_in_the_limits_error() -> None:
    """Nobody takes for an answer what a block made of being cut."""

    def none_found() -> list[str]:
        with suppress(BaseException):
            spin()
        return []

    with pytest.raises(LateError), Alarm(0.05, LateError):
        none_found()
