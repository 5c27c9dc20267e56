"""A broker that forgets everything takes along no job that the ledger knows."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from resilience.ledger import State
from resilience.testing.waiting import wait_until
from tests.chaos.stage import Stage

JOBS = 60
LEASE_SECONDS = 5.0
DUE_SECONDS = 1.0
LATER_SECONDS = 4.0
SECONDS = 120.0


@pytest.fixture(params=["valkey", pytest.param("rabbitmq", marks=pytest.mark.long)])
def stage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stage]:
    """Everything, with leases that run out soon, on one broker or the other."""
    stage = Stage(
        tmp_path,
        rabbitmq=request.getfixturevalue("rabbitmq") if request.param == "rabbitmq" else None,
        lease_seconds=LEASE_SECONDS,
    )
    with stage.running() as running:
        yield running


def test_jobs_finish_though_the_broker_was_flushed(stage: Stage) -> None:
    """Jobs, parked or dispatched when the broker forgets all, are all done or dead."""
    for number in range(JOBS):
        stage.fire(number, countdown=DUE_SECONDS if number % 4 else LATER_SECONDS)
    wait_until(lambda: _kept(stage, State.DISPATCHED) > JOBS / 4, SECONDS, "many are dispatched")
    assert _kept(stage, State.SCHEDULED)

    stage.broker.flush()
    verdict = stage.await_end(SECONDS)

    assert verdict.accepted == JOBS
    assert not verdict.lost


def _kept(stage: Stage, state: State) -> int:
    return sum(count.jobs for count in stage.ledger.counts() if count.state is state)
