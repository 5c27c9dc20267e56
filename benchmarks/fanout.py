"""Fan-outs beside Celery's chord and beside one task, both of an app that never saw this library.

Each on a prefork worker with as many processes as a dependency has by default; sides take turns.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from time import perf_counter

from benchmarks.client import STOCK
from benchmarks.figure import Figure, paired_ratio
from benchmarks.sides import Side
from resilience import Dependency, FanOut, part
from resilience.testing.stack import run_worker
from resilience.testing.valkey import ValkeyProcess

MANY = 1000
FEW = 5
CHORD_BOUND = 0.4
ROUND_TRIP_BOUND = 2.0
CONCURRENCY = Dependency("noop").concurrency


def run(*, quick: bool) -> Iterator[Figure]:
    """Measure; *quick* takes fewer rounds."""
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="benchmark-")))
        server = ValkeyProcess(home / "valkey")
        server.start()
        stack.callback(server.kill)
        os.environ["BENCHMARK_URL"] = server.url  # noqa: TID251 - an entry point
        other = f"{server.url.removesuffix('0')}1"
        stock = Side(
            "benchmarks.stock",
            queues=[STOCK],
            env={"BENCHMARK_BROKER": other, "BENCHMARK_BACKEND": other},
            home=home / "stock",
            concurrency=CONCURRENCY,
        )
        stack.enter_context(stock.running())
        worker = stack.enter_context(
            run_worker(
                "benchmarks.fanout_app",
                queues=["noop"],
                concurrency=CONCURRENCY,
                env={"BENCHMARK_URL": server.url},
                loglevel="WARNING",
            )
        )
        stack.callback(worker.kill)
        yield from _measure(stock, quick=quick)


def _measure(stock: Side, *, quick: bool) -> Iterator[Figure]:
    fan_out(MANY)
    stock.ask("gather", MANY)
    many = [(fan_out(MANY), stock.ask("gather", MANY)) for _ in range(3 if quick else 9)]
    yield _ratio("fanout_1000_vs_chord_1000", many, CHORD_BOUND)
    few = [(fan_out(FEW), stock.ask("one")) for _ in range(60 if quick else 300)]
    yield _ratio("fanout_5_vs_one_task", few, ROUND_TRIP_BOUND)


def fan_out(parts: int) -> float:
    """Return how long a fan-out of so many parts takes.

    Raises:
        RuntimeError: It lost some.
    """
    from benchmarks.fanout_app import part_noop  # noqa: PLC0415 - needs the URL

    began = perf_counter()
    fan = FanOut(**{f"part{number}": part(part_noop.s(number)) for number in range(parts)})
    response = fan.apply_async(budget=60.0).get()
    took = perf_counter() - began
    if response.partial or len(response.data) != parts:
        msg = f"the fan-out lost parts: {response.missing[:5]}"
        raise RuntimeError(msg)
    return took


def _ratio(name: str, turns: list[tuple[float, float]], bound: float) -> Figure:
    ours, theirs = zip(*turns, strict=True)
    ms = {
        "fan_out_ms": round(median(ours) * 1000, 2),
        "celery_ms": round(median(theirs) * 1000, 2),
    }
    return Figure(
        name=name,
        value=paired_ratio(ours, theirs),
        unit="ratio",
        bound=bound,
        sides={**ms, "turns": len(turns)},
    )
