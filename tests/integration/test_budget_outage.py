"""Late jobs while the result backend is away."""

from collections.abc import Iterator

import pytest

from resilience.testing.waiting import wait_until
from tests.integration.apps import budget_jobs
from tests.integration.apps.stage import SECONDS, Stage, new_key, running_stage

SHORT = 0.001


@pytest.fixture
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A worker of the app in apps/budget_jobs.py."""
    with running_stage(tmp_path_factory, app_path=budget_jobs.__name__, concurrency=1) as running:
        yield running


@pytest.mark.parametrize("number", [pytest.param(1, id="one"), pytest.param(20, id="a-backlog")])
def test_worker_drops_late_jobs_and_goes_on_without_its_result_backend(
    stage: Stage, number: int
) -> None:
    """It gives results up that it cannot store, as it does after a run, and says so."""
    queue = key = new_key()
    for _ in range(number):
        stage.app.tasks["tell"].apply_async(kwargs={"key": key}, queue=queue, budget=SHORT)
    broker, worker = stage.broker, stage.worker
    assert worker is not None

    stage.desk.stop()
    stage.app.control.add_consumer(queue)
    wait_until(lambda: not broker.waiting([queue]), SECONDS, "all are dropped")
    stage.desk.start()

    assert worker.running
    assert "no result is stored for dropped jobs" in worker.log
    stage.app.tasks["tell"].apply_async(kwargs={"key": key})
    assert stage.await_note(key)["task"] == "tell"
    assert len(stage.noted(key)) == 1
