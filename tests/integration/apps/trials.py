"""An app with features that cost something, for trials; workers and tests import `app`."""

import os
import random
import time
from contextlib import suppress
from statistics import fmean

from celery import Celery

from resilience import (
    Dependency,
    Feature,
    FeatureShedError,
    Level,
    Resilience,
    SheddingPolicy,
    degradable,
    fallback,
)
from resilience.clock import SystemClock

COST_SECONDS = 0.04
BASE_SECONDS = 0.01
TOOK: list[float] = []
"""How long the feature took in this process, by call, since this was last asked for."""
monotonic = SystemClock.monotonic
_random = random.Random()  # noqa: S311 - noise

app = Celery("trials", broker=os.environ.get("CELERY_BROKER_URL"), set_as_current=False)  # noqa: TID251 - an entry point
resilience = Resilience(
    app,
    dependencies=[Dependency("search")],
    features=[
        Feature("ranking", level=Level.REDUCED, cost=1.0),
        Feature("spelling", level=Level.REDUCED),
        Feature("bare", level=Level.REDUCED),
        Feature("broken", level=Level.REDUCED),
        Feature("rare", level=Level.REDUCED),
    ],
    shedding=SheddingPolicy(load=None),  # a busy machine must shed nothing here
)


def base() -> str:
    """Take as long as a call without the feature."""
    time.sleep(_random.uniform(0, 2 * BASE_SECONDS))  # noqa: TID251 - what is measured
    return "plain"


def ranked() -> str:
    """Take as long as a call with the feature; what the feature took is noted."""
    began = monotonic()
    time.sleep(COST_SECONDS)  # noqa: TID251 - what is measured
    TOOK.append(monotonic() - began)
    return base()


def broken() -> str:
    """Fail, as something that was never tried."""
    raise ConnectionError


spelled = resilience.pipeline(
    "search", feature="spelling", fallbacks=[fallback.call(base, level=Level.REDUCED)]
)
bare = resilience.pipeline("search", feature="bare")


def without_fallbacks() -> str:
    """Leave it to the caller to do without the feature."""
    with suppress(FeatureShedError):
        bare.call(ranked)
    return base()


CALLS = {
    "bare": without_fallbacks,
    "ranking": degradable("ranking", otherwise=base)(ranked),
    "spelling": lambda: spelled.call(ranked),
    "broken": degradable("broken", otherwise=broken)(base),
    "rare": degradable("rare", otherwise=base)(ranked),
}


@app.task(name="burst", shared=False)
def burst(feature: str, calls: int) -> int:
    """Call a function of the feature so often; return how many calls raised."""
    failed = 0
    for _ in range(calls):
        try:
            CALLS[feature]()
        except ConnectionError:
            failed += 1
    return failed


@app.task(name="mean_cost", shared=False)
def mean_cost() -> float:
    """Return how long the feature took on average, as its calls saw it."""
    took, TOOK[:] = TOOK[:], []
    return fmean(took)
