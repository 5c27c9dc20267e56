"""The app of the budget benchmark: a no-op under two names, to tell whether late ones ran."""

import os

from celery import Celery

from resilience import Dependency, Resilience, ResilientTask

URL = os.environ["BENCHMARK_URL"]  # noqa: TID251 - an entry point
app = Celery("benchmarks", broker=URL, backend=URL)
Resilience(app, dependencies=[Dependency("noop")])


@app.task(base=ResilientTask, dependency="noop")
def noop(number: int) -> int:
    """Return the number."""
    return number


@app.task(base=ResilientTask, dependency="noop")
def late_noop(number: int) -> int:
    """Return the number; nobody should ever run it."""
    return number
