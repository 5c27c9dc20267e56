"""Calls on a connection that are cut by hanging up: what ends, what stays usable, what is freed."""

import random
import socket
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from time import perf_counter

import pytest

from resilience.budget import call_within
from resilience.budget.threads import AbandonedError, helper_threads
from resilience.budget.watching import hung_up_after
from resilience.testing.waiting import wait_until

SECONDS = 120.0
ROUNDS = 500
FILES = Path("/proc/self/fd")


@pytest.fixture
def line() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A connection, and its other end."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


@contextmanager
def hectic() -> Iterator[None]:
    """Let threads take turns as often as they can, so that they meet where they rarely do."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def files_of(connection: socket.socket) -> int:
    """Return how many files of this process are *connection*; other tests leave files of others."""
    name = (FILES / str(connection.fileno())).readlink()
    found = 0
    for file in FILES.iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile, as is the one that this looks with
            found += file.readlink() == name
    return found


def spin(until: float) -> None:
    """Keep the interpreter busy."""
    while perf_counter() < until:
        pass


def test_call_on_a_silent_connection_has_ended_when_its_error_comes(
    line: tuple[socket.socket, socket.socket],
) -> None:
    """Nobody waits on the connection any longer, so whoever gets the error may close it."""
    ended: list[int] = []

    def ask() -> None:
        try:
            line[0].recv(1)
        finally:
            ended.append(threading.get_ident())

    def call() -> tuple[type[BaseException] | None, list[int]]:
        try:
            call_within(0.05, lambda: TimeoutError("silent"), ask, file=line[0].fileno())
        except TimeoutError as error:
            return type(error), [one == threading.get_ident() for one in ended]
        return None, []

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(call).result(SECONDS) == (TimeoutError, [True])
    assert not helper_threads.abandoned


def test_error_of_the_call_comes_as_it_is_while_there_is_time(
    line: tuple[socket.socket, socket.socket],
) -> None:
    """What the server refuses is no timeout."""
    refused = PermissionError("refused")

    def ask() -> None:
        raise refused

    with pytest.raises(PermissionError) as caught:
        hung_up_after(SECONDS, line[0].fileno(), ask)

    assert caught.value is refused


def test_connection_is_shut_down_if_and_only_if_its_call_is_late() -> None:
    """However the end of the call meets that of its time; an answer that counts leaves it open."""
    dice, ends = random.Random(7), {True: 0, False: 0}  # noqa: S311 - to vary limits
    with hectic():
        for _ in range(ROUNDS):
            ours, theirs = socket.socketpair()
            with ours, theirs:
                until = perf_counter() + dice.uniform(0, 1e-3)
                try:
                    hung_up_after(dice.uniform(0, 3e-4), ours.fileno(), partial(spin, until))
                    in_time = True
                except AbandonedError:
                    in_time = False
                ends[in_time] += 1
                if in_time:
                    theirs.send(b"x")
                    assert ours.recv(1) == b"x"
                else:
                    theirs.settimeout(SECONDS)
                    assert theirs.recv(1) == b""
    assert all(ends.values()), ends


@pytest.mark.skipif(not FILES.exists(), reason="counts files in /proc")
def test_no_file_stays_open(line: tuple[socket.socket, socket.socket]) -> None:
    """Not of a call in time, not of a late one, and not if there is no thread to be had."""
    assert files_of(line[0]) == 1
    hung_up_after(SECONDS, line[0].fileno(), str)
    with pytest.raises(AbandonedError):
        hung_up_after(0.01, line[0].fileno(), lambda: line[0].recv(1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(helper_threads, "give", lambda _: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            hung_up_after(SECONDS, line[0].fileno(), str)

    wait_until(lambda: files_of(line[0]) == 1, SECONDS, "all files are closed")
