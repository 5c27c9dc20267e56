"""The app of `benchmarks.flag_trial`: a ranking that takes 40 ms, and noise."""

import random
import time

from celery import Celery

from resilience import Dependency, Feature, Level, Resilience, degradable

RANKING = "ranking"
COST_SECONDS = 0.04
NOISE_SECONDS = 0.02
_random = random.Random()  # noqa: S311 - noise

app = Celery("trial", set_as_current=False)
resilience = Resilience(
    app, dependencies=[Dependency("search")], features=[Feature(RANKING, level=Level.REDUCED)]
)


def plain() -> None:
    """Search without ranking."""
    time.sleep(_random.uniform(0, NOISE_SECONDS))  # noqa: TID251 - what is measured


@degradable(RANKING, otherwise=plain)
def search() -> None:
    """Search."""
    time.sleep(COST_SECONDS)  # noqa: TID251 - what is measured
    plain()


@app.task(name="burst", shared=False)
def burst(calls: int) -> None:
    """Search so often."""
    for _ in range(calls):
        search()
