"""A job that is published right after a commit finds the row, though the replica lags.

`PUBLISHED_ROWS=10000` in the environment is the run of the release.
"""

import os
import random
import threading
from collections.abc import Iterator

import pytest

from resilience.testing.rabbitmq import RabbitProcess
from resilience.testing.waiting import wait_until
from tests import brokers
from tests.integration.apps.positions_stage import SECONDS, Stage, new_keys, running_stage

ROWS = int(os.environ.get("PUBLISHED_ROWS", "30"))  # noqa: TID251 - of the test alone
LAG_SECONDS_MAX = 0.5
CHANGE_SECONDS = 0.25
TASKS = ("plain", "sticky", "delayed")


@pytest.fixture(scope="module", params=["valkey", pytest.param("rabbitmq", marks=pytest.mark.long)])
def stage(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stage]:
    """Servers and a worker, on either broker."""
    broker = None
    if request.param == "rabbitmq":
        server: RabbitProcess = request.getfixturevalue("rabbitmq")
        broker = brokers.Rabbit(server)
    elif brokers.ON_RABBITMQ:
        pytest.skip("the other run has it")
    with running_stage(tmp_path_factory, loglevel="WARNING", broker=broker) as running:
        yield running


def change_lag(stage: Stage, done: threading.Event) -> None:
    """Let the replica lag by another time every moment."""
    dice = random.Random(14)  # noqa: S311 - nothing is secret
    while not done.wait(CHANGE_SECONDS):
        stage.link.slow(dice.uniform(0.0, LAG_SECONDS_MAX))


@pytest.mark.timeout(120 + ROWS / 10)
def test_no_job_misses_the_row_that_was_committed_before_it(stage: Stage) -> None:
    """Neither a sticky nor a delayed one does; of Celery's own, many do."""
    stage.fall_behind()
    stage.catch_up()
    client, done, targets = stage.desk.client(), threading.Event(), new_keys(len(TASKS))
    jobs = dict(zip(TASKS, targets, strict=True))

    def tallied() -> bool:
        return all(
            sum(int(client.hget(target, one) or 0) for one in ("seen", "missing")) == ROWS
            for target in targets
        )

    lagging = threading.Thread(target=change_lag, args=(stage, done))
    lagging.start()
    try:
        for key in new_keys(ROWS):
            with stage.adopted.consistent_session():
                stage.write(key)
                for name, target in jobs.items():
                    stage.app.tasks[f"{name}.tally"].delay(key, target)
            for name in ("plain", "sticky"):  # no job waits in a queue until the replica has it
                assert client.blpop([f"{jobs[name]}:done"], timeout=int(SECONDS))
        wait_until(tallied, 60 + ROWS / 20, "all jobs have run")
    finally:
        done.set()
        lagging.join()
        stage.link.resume()
    found = {
        name: {one.decode(): int(number) for one, number in client.hgetall(target).items()}
        for name, target in jobs.items()
    }
    print("rows", ROWS, found)  # noqa: T201 - the share that misses is what people ask for
    assert "missing" not in found["sticky"]
    assert "missing" not in found["delayed"]
    assert found["plain"]["missing"] > ROWS / 10, "the replica did not lag"
