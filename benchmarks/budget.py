"""What a budget of time costs, and how fast a backlog of late jobs is out of the way."""

import os
import statistics
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

from celery.result import AsyncResult

from benchmarks.figure import Figure, in_turns, median_us, paired_ratio
from resilience import Dependency, ResilientTask, TimeoutBudget
from resilience.testing.stack import run_worker
from resilience.testing.valkey import ValkeyProcess
from resilience.testing.waiting import wait_until

LONG = 3600.0
SHORT = 1e-3
RUN_BOUND = 5.0
PUBLISH_BOUND = 1.03
PUBLISHES = 20
BACKLOG = 10_000
BACKLOG_QUICK = 1_500
BACKLOG_BOUND = 0.333
"""Of the time that the pool takes for as many no-ops."""
FRESH = 20
QUEUE = "noop"
BATCH = 500
SECONDS = 120.0


def run(*, quick: bool) -> Iterator[Figure]:
    """Measure; *quick* takes fewer rounds, and a smaller backlog."""
    # In the main thread, where a timer is armed for each call.
    run_in = partial(TimeoutBudget(LONG).run, _noop)
    took = median_us(run_in, repeats=5_000 if quick else 20_000)
    yield Figure(name="budget_run", value=took, unit="us", bound=RUN_BOUND)
    with tempfile.TemporaryDirectory(prefix="benchmark-") as directory:
        server = ValkeyProcess(Path(directory) / "valkey")
        server.start()
        os.environ["BENCHMARK_URL"] = server.url  # noqa: TID251 - an entry point
        try:
            yield _publish(server, rounds=120 if quick else 1000)
            yield _backlog(server, quick=quick)
        finally:
            server.stop()


def _noop() -> None:
    """Do nothing."""


def _publish(server: ValkeyProcess, *, rounds: int) -> Figure:
    from benchmarks.budget_app import noop  # noqa: PLC0415 - needs the URL

    def publish(**options: Any) -> None:  # noqa: ANN401 - Celery's
        for number in range(PUBLISHES):
            noop.apply_async((number,), **options)

    in_turns(5, with_budget=lambda: publish(budget=LONG), without=publish)
    seconds = in_turns(rounds, with_budget=lambda: publish(budget=LONG), without=publish)
    server.flush()
    return Figure(
        name="publish_with_budget_vs_without",
        value=paired_ratio(seconds["with_budget"], seconds["without"]),
        unit="ratio",
        bound=PUBLISH_BOUND,
        sides={
            name: f"{sorted(side)[rounds // 2] / PUBLISHES * 1e6:.0f} µs"
            for name, side in seconds.items()
        },
    )


def _backlog(server: ValkeyProcess, *, quick: bool) -> Figure:
    from benchmarks.budget_app import app, late_noop, noop  # noqa: PLC0415 - needs the URL

    number, rounds = (BACKLOG_QUICK, 2) if quick else (BACKLOG, 3)
    late: list[float] = []
    noops: list[float] = []
    with run_worker(
        "benchmarks.budget_app",
        queues=["idle"],
        concurrency=Dependency(QUEUE).concurrency,
        env={"BENCHMARK_URL": server.url},
        loglevel="WARNING",
    ):
        for _ in range(rounds):
            _fill(late_noop, number, budget=SHORT)
            late.append(_drain(server, _fill(noop, FRESH, budget=LONG)))
            noops.append(_drain(server, _fill(noop, number + FRESH)[-FRESH:]))
        ran = app.control.inspect().stats() or {}
    if not ran or any(late_noop.name in one["total"] for one in ran.values()):
        msg = f"late jobs reached the pool: {ran}"
        raise RuntimeError(msg)
    return Figure(
        name=f"drop_{number}_late_jobs_vs_run_as_many",
        value=paired_ratio(late, noops),
        unit="ratio",
        bound=BACKLOG_BOUND,
        sides={
            "late": f"{number / statistics.median(late):.0f} jobs/s",
            "noops": f"{number / statistics.median(noops):.0f} jobs/s",
        },
    )


def _fill(task: ResilientTask, number: int, **options: Any) -> list[AsyncResult[Any]]:  # noqa: ANN401
    """Publish so many jobs, which nobody consumes yet."""
    with task.app.producer_or_acquire(None) as producer, producer.batch(BATCH):
        return [
            task.apply_async((one,), producer=producer, retry=False, **options)
            for one in range(number)
        ]


def _drain(server: ValkeyProcess, last: list[AsyncResult[Any]]) -> float:
    """Return how long the worker takes until all jobs are acknowledged, and the *last* have run."""
    control, broker = last[0].app.control, server.client()
    began = perf_counter()
    control.add_consumer(QUEUE, reply=True, limit=1)
    wait_until(lambda: not broker.llen(QUEUE) and not broker.hlen("unacked"), SECONDS, "it is done")
    seconds = perf_counter() - began
    control.cancel_consumer(QUEUE, reply=True, limit=1)
    for result in last:
        result.get(timeout=SECONDS)  # raises if it was dropped
    return seconds
