"""Reads while a server accepts connections, and says nothing: its host has no time for it."""

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from time import perf_counter
from typing import Any

import psutil
import pytest
from sqlalchemy import event
from sqlalchemy.exc import OperationalError

from resilience.breaker import BreakerPolicy
from resilience.budget import TimeoutBudget
from resilience.consistency import ConsistentSession, in_session
from resilience.databases import answering, postgres, servers
from resilience.databases.measured import Measured
from resilience.testing.postgres import PostgresProcess, backends_of
from tests.replicated import Stage, answered, read, write

READS = 20
ANSWER_SECONDS = 3.0
"""How long a read waits for a silent replica: any other read takes far less."""


@pytest.mark.parametrize("where", ["main thread", "thread", "event loop"])
def test_replica_that_accepts_and_says_nothing_is_left_for_another(
    stage: Stage, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever the code runs; what it is asked for is how far it is, before the read.

    One read of all waits: it opens the circuit of the replica, which stays open here.
    """
    monkeypatch.setattr(answering, "ANSWER_SECONDS", ANSWER_SECONDS)
    stays_open = partial(BreakerPolicy, open_seconds=600.0, open_seconds_max=600.0)
    monkeypatch.setattr(servers, "BreakerPolicy", stays_open)
    databases = stage.databases(wait_seconds=5.0, position_cache_seconds=0.0)
    with in_session(ConsistentSession()):
        note = write(databases, "there")
        stage.level()

    ends: list[float] = []

    async def read_async() -> list[tuple[str | None, str]]:
        found = []
        for _ in range(READS):
            async with databases.AsyncSession() as session:
                found.append(await session.run_sync(lambda one: answered(one, note)))
            ends.append(perf_counter())
        return found

    def read_all() -> list[tuple[str | None, str]]:
        found = []
        for _ in range(READS):
            found.append(read(databases, note))
            ends.append(perf_counter())
        return found

    with asyncio.Runner() as runner, ThreadPoolExecutor(1) as pool:
        calls: dict[str, Callable[[], list[tuple[str | None, str]]]] = {
            "main thread": read_all,
            "thread": lambda: pool.submit(read_all).result(),
            "event loop": lambda: runner.run(read_async()),
        }
        calls[where]()
        with stopped(stage.replicas[0]):
            ends[:] = [perf_counter()]
            answers = calls[where]()
        runner.run(databases.aclose())

    assert answers == [("there", "replica")] * READS
    assert sum(end - began >= ANSWER_SECONDS for began, end in pairwise(ends)) == 1


def test_silent_replica_leaves_time_in_the_budget_for_another(stage: Stage) -> None:
    """It is waited for half of what remains at most."""
    databases = stage.databases(wait_seconds=5.0, position_cache_seconds=0.0)
    note = write(databases, "there")
    stage.level()
    for _ in range(READS):
        read(databases, note)
    with stopped(stage.replicas[0]):
        answers = [TimeoutBudget(3.0).run(read, databases, note) for _ in range(READS)]

    assert answers == [("there", "replica")] * READS


def test_connection_is_closed_by_nobody_while_somebody_waits_on_it(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread that closed it while another one waits in libpq would crash the process."""
    monkeypatch.setattr(answering, "ANSWER_SECONDS", 0.1)
    primary = stage.databases().primary
    waiting: list[str] = []
    closed: list[list[str]] = []

    def measure(cursor: Any, known: float) -> Measured:  # noqa: ANN401 - of any driver
        waiting.append("somebody")
        try:
            return postgres.measure(cursor, known)
        finally:
            waiting.clear()

    def ask() -> Measured:
        with primary.connect(asynchronous=False) as connection:
            stage.front.stall()
            return primary.measure(connection)

    monkeypatch.setattr(primary, "_measure", measure)
    event.listen(
        primary.engine(asynchronous=False), "close", lambda *_: closed.append(waiting.copy())
    )
    try:
        with ThreadPoolExecutor(1) as pool:
            error = pool.submit(ask).exception()
    finally:
        stage.front.resume()

    assert isinstance(error, OperationalError)
    assert closed == [[]]


@contextmanager
def stopped(server: PostgresProcess) -> Iterator[None]:
    """Let a server and all its backends do nothing for the time being."""
    processes = [psutil.Process(server.pid), *backends_of(server.pid)]
    for process in processes:
        process.suspend()
    try:
        yield
    finally:
        for process in processes:
            process.resume()
