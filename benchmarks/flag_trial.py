"""How often a trial finds the cost of a feature that is known: ranking takes 40 ms.

Each run is a trial of its own on a real worker with eight threads; half of the calls are shed.
"""

import os
from collections.abc import Iterator

from benchmarks.breaker_fleet import running_server
from benchmarks.figure import Figure
from resilience.flags.document import Cost
from resilience.testing.stack import run_worker
from resilience.testing.waiting import wait_until

MISSED_MAX = 0.1
"""Share of the runs in which the true cost may lie outside the interval."""
JOBS, CALLS = 8, 60
SECONDS = 60.0


def run(*, quick: bool) -> Iterator[Figure]:
    """Measure; *quick* takes fewer runs."""
    with running_server() as server:
        env = {
            "CELERY_BROKER_URL": server.url,
            "CELERY_RESULT_BACKEND": server.url,
            "RESILIENCE_STORE_TIMEOUT_SECONDS": "1",
        }
        os.environ.update(env)  # noqa: TID251 - an entry point: the app reads it when imported
        from benchmarks.flag_trial_app import COST_SECONDS  # noqa: PLC0415 - see above

        app_path = "benchmarks.flag_trial_app"
        with run_worker(app_path, queues=["celery"], pool="threads", concurrency=JOBS, env=env):
            costs = [_trial() for _ in range(3 if quick else 10)]
    missed = sum(cost is None or not cost.low <= COST_SECONDS <= cost.high for cost in costs)
    yield Figure(
        name="trials that missed the true cost",
        value=missed / len(costs),
        unit="share of runs",
        bound=MISSED_MAX,
        sides={
            "true_ms": COST_SECONDS * 1000,
            "found_ms": [cost and _ms(cost.seconds, cost.low, cost.high) for cost in costs],
        },
    )


def _ms(*seconds: float) -> list[float]:
    return [round(1000 * one, 2) for one in seconds]


def _trial() -> Cost | None:
    from benchmarks.flag_trial_app import RANKING, burst, resilience  # noqa: PLC0415 - see above

    flags = resilience.flags
    plan = flags.start_trial(
        RANKING, share=0.5, seconds=600, actor="benchmark", reason="known cost"
    )
    for result in [burst.delay(CALLS) for _ in range(JOBS)]:
        result.get(timeout=SECONDS)
    flags.stop_trial(RANKING)

    def over() -> bool:
        resilience.pulse.refresh()
        return RANKING not in flags.document.trials

    wait_until(over, SECONDS, "the trial is over")
    found = flags.document.costs.get(RANKING)
    return found if found is not None and found.at > plan.began else None
