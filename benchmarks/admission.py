"""What it costs to publish to a dependency with `max_queue`, next to one without."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

from celery import Celery

from benchmarks.figure import Figure, in_turns, median_ms, paired_ratio
from resilience import Dependency, Resilience, ResilientTask
from resilience.settings import Settings
from resilience.testing.valkey import ValkeyProcess

RATIO = 1.05
AT_ONCE = 50
ROOM = 100_000_000


def run(*, quick: bool) -> Iterator[Figure]:
    """Measure; *quick* takes fewer rounds."""
    with tempfile.TemporaryDirectory(prefix="benchmark-") as directory:
        server = ValkeyProcess(Path(directory))
        server.start()
        try:
            yield _measure(server.url, rounds=60 if quick else 400)
        finally:
            server.stop()


def _measure(url: str, rounds: int) -> Figure:
    """Publish to both in turns; a reading is taken each second."""
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

    def publish(task: ResilientTask) -> None:
        for _ in range(AT_ONCE):
            task.delay()

    publish(limited)
    publish(free)
    seconds = in_turns(rounds, ours=lambda: publish(limited), theirs=lambda: publish(free))
    app.close()
    ours, theirs = seconds["ours"], seconds["theirs"]
    return Figure(
        name="publish_with_max_queue",
        value=paired_ratio(ours, theirs),
        unit="ratio",
        bound=RATIO,
        sides={
            "mean_ratio": round(sum(ours) / sum(theirs), 4),
            "with_ms": median_ms(ours) / AT_ONCE,
            "without_ms": median_ms(theirs) / AT_ONCE,
            "publishes": rounds * AT_ONCE,
        },
    )
