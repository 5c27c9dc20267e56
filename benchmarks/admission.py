"""What it costs to publish to a dependency with `max_queue`, next to one without.

The depth of its queue is read once a second. A turn is longer than that, and its sums are compared,
so that no turn is spared the readings: they weigh twice, as half of the time is the other side's.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter

from celery import Celery

from benchmarks.figure import Figure, paired_ratio
from resilience import Dependency, Resilience, ResilientTask
from resilience.settings import Settings
from resilience.testing.valkey import ValkeyProcess

RATIO = 1.05
AT_ONCE = 10
TURN_SECONDS = 2.5
ROOM = 100_000_000


def run(*, quick: bool) -> Iterator[Figure]:
    """Measure; *quick* takes fewer rounds."""
    with tempfile.TemporaryDirectory(prefix="benchmark-") as directory:
        server = ValkeyProcess(Path(directory))
        server.start()
        try:
            yield _measure(server.url, rounds=7 if quick else 25)
        finally:
            server.stop()


def _measure(url: str, rounds: int) -> Figure:
    """Publish to both in turns."""
    app = Celery("benchmarks", broker=url, set_as_current=False)
    Resilience(
        app,
        dependencies=[Dependency("limited", max_queue=ROOM), Dependency("free")],
        settings=Settings(store_url=url),
        listeners=[],
    )

    @app.task(base=ResilientTask, dependency="limited", ignore_result=True, shared=False)
    def limited() -> None: ...

    @app.task(base=ResilientTask, dependency="free", ignore_result=True, shared=False)
    def free() -> None: ...

    app.finalize()

    def publish(task: ResilientTask) -> float:
        began = perf_counter()
        for _ in range(AT_ONCE):
            task.delay()
        return perf_counter() - began

    def turn() -> tuple[float, float]:
        """Return the seconds of each side, of which neither is spared what disturbs the other."""
        began, ours, theirs = perf_counter(), 0.0, 0.0
        while perf_counter() - began < TURN_SECONDS:
            ours += publish(limited)
            theirs += publish(free)
        return ours, theirs

    turn()
    turns = [turn() for _ in range(rounds)]
    app.close()
    ours, theirs = zip(*turns, strict=True)
    return Figure(
        name="publish_with_max_queue",
        value=paired_ratio(ours, theirs),
        unit="ratio",
        bound=RATIO,
        sides={
            "mean_ratio": round(sum(ours) / sum(theirs), 4),
            "turns": rounds,
        },
    )
