"""Fan-outs beside Celery's chord and beside one task.

All on one prefork worker, with as many processes as a dependency has by default.
"""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from celery import chord

from benchmarks.figure import Figure, in_turns, median_ms, paired_ratio
from resilience import Dependency, FanOut, part
from resilience.testing.stack import run_worker
from resilience.testing.valkey import ValkeyProcess

MANY = 1000
FEW = 5
CHORD_BOUND = 0.6
ROUND_TRIP_BOUND = 3.0


def run(*, quick: bool) -> Iterator[Figure]:
    """Measure; *quick* takes fewer rounds."""
    with tempfile.TemporaryDirectory(prefix="benchmark-") as directory:
        server = ValkeyProcess(Path(directory) / "valkey")
        server.start()
        os.environ["BENCHMARK_URL"] = server.url  # noqa: TID251 - an entry point
        try:
            with run_worker(
                "benchmarks.fanout_app",
                queues=["noop"],
                concurrency=Dependency("noop").concurrency,
                env={"BENCHMARK_URL": server.url},
                loglevel="WARNING",
            ):
                yield from _measure(quick=quick)
        finally:
            server.stop()


def _measure(*, quick: bool) -> Iterator[Figure]:
    from benchmarks.fanout_app import count, part_noop, plain_noop  # noqa: PLC0415 - needs the URL

    def fan_out(parts: int) -> None:
        pending = FanOut(**{f"part{n}": part(part_noop.s(n)) for n in range(parts)}).apply_async(
            budget=60.0
        )
        response = pending.get()
        if response.partial or len(response.data) != parts:
            msg = f"the fan-out lost parts: {response.missing[:5]}"
            raise RuntimeError(msg)

    def celery_chord() -> None:
        result = chord([plain_noop.s(n) for n in range(MANY)], count.s()).apply_async()
        if result.get(timeout=60.0) != MANY:
            msg = "the chord lost parts"
            raise RuntimeError(msg)

    def one_task() -> None:
        plain_noop.delay(1).get(timeout=10.0)

    in_turns(1 if quick else 2, fan_out=lambda: fan_out(MANY), chord=celery_chord)
    many = in_turns(4 if quick else 9, fan_out=lambda: fan_out(MANY), chord=celery_chord)
    yield Figure(
        name="fanout_1000_vs_chord_1000",
        value=paired_ratio(many["fan_out"], many["chord"]),
        unit="ratio",
        bound=CHORD_BOUND,
        sides={name: f"{median_ms(seconds)} ms" for name, seconds in many.items()},
    )
    few = in_turns(60 if quick else 300, fan_out=lambda: fan_out(FEW), one_task=one_task)
    ours, theirs = median_ms(few["fan_out"]), median_ms(few["one_task"])
    yield Figure(
        name="fanout_5_p50_vs_one_task_p50",
        value=ours / theirs,
        unit="ratio",
        bound=ROUND_TRIP_BOUND,
        sides={"fan_out": f"{ours} ms", "one_task": f"{theirs} ms"},
    )
