"""The app of the fan-out benchmark: the same no-op as a part and as a plain task."""

import os

from celery import Celery

from resilience import Dependency, Resilience, ResilientTask

URL = os.environ["BENCHMARK_URL"]  # noqa: TID251 - an entry point
app = Celery("benchmarks", broker=URL, backend=URL)
Resilience(app, dependencies=[Dependency("noop")])


@app.task(base=ResilientTask, dependency="noop")
def part_noop(number: int) -> int:
    """Return the number, as a part."""
    return number


@app.task(queue="noop")
def plain_noop(number: int) -> int:
    """Return the number, as a plain task."""
    return number


@app.task(queue="noop")
def count(values: list[int]) -> int:
    """Return how many values a chord brought."""
    return len(values)
