"""The adaptive limit on a real worker: fewer jobs at once while more only slow each other down."""

import statistics

import pytest

from resilience.testing.waiting import wait_until
from tests.integration.held_stage import HeldStage, servers, stage

__all__ = ["servers", "stage"]
JOBS = 120


@pytest.mark.parametrize("pool", ["threads", pytest.param("prefork", marks=pytest.mark.long)])
def test_worker_runs_fewer_jobs_at_once_while_the_dependency_slows_down(
    stage: HeldStage, pool: str
) -> None:
    """Of 16 declared, not many more run than the dependency can do: it takes three at once."""
    with stage.worker("crowd", concurrency=16, pool=pool) as worker:
        stage.publish("crowd", JOBS)
        wait_until(lambda: len(stage.calls()) == JOBS, 60, "all have begun")
        at_once = [count for _, count, _ in stage.calls()]
        assert max(at_once[:5]) == 1, "it begins with a measurement"
        assert stage.held.SLOW_FROM - 1 <= statistics.median(at_once[JOBS // 3 :]) <= 8
        worker.kill()
