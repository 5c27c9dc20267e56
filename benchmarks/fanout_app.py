"""The app of the fan-out benchmark: a part that does nothing."""

import os

from celery import Celery

from resilience import Dependency, Resilience, ResilientTask

URL = os.environ["BENCHMARK_URL"]  # noqa: TID251 - an entry point
app = Celery("benchmarks", broker=URL, backend=URL)
Resilience(app, dependencies=[Dependency("noop")])


@app.task(base=ResilientTask, dependency="noop")
def part_noop(number: int) -> int:
    """Return the number."""
    return number
