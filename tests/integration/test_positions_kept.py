"""Jobs that the ledger keeps read what was written before they were published, or with them."""

from collections.abc import Iterator
from typing import Any

import pytest
from celery.utils import uuid

from resilience.ledger import Which
from resilience.testing.waiting import wait_until
from tests.integration.apps.positions import NOTES
from tests.integration.apps.positions_stage import SECONDS, Stage, new_keys, running_stage
from tests.replicated import Stage as Replicated


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, replicated: Replicated) -> Iterator[Stage]:
    """Servers and a worker, whose relay publishes what the ledger keeps."""
    with running_stage(tmp_path_factory, replicated) as stage:
        yield stage


@pytest.fixture
def stage(running: Stage) -> Iterator[Stage]:
    """A replica that lags."""
    running.fall_behind()
    yield running
    running.link.resume()


def fire(stage: Stage, task: str, *args: object) -> None:
    """Fire a job of *task*."""
    known: Any = stage.app.tasks[task]
    known.fire(*args)


@pytest.mark.parametrize("mode", ["fire", "sticky", "delayed"])
def test_job_published_in_a_transaction_sees_its_row(stage: Stage, mode: str) -> None:
    """Nobody knew where the commit would be when the job was written down."""
    targets = {}
    for key in new_keys(10):
        targets[key] = target = new_keys(1)[0]
        with stage.adopted.sources["default"].Session.begin() as session:
            session.execute(NOTES.insert().values(id=key))
            known: Any = stage.app.tasks[f"{mode}.note"]
            known.publish_with(session, (key, target))
    assert [stage.noted(target) for target in targets.values()] == [["seen"]] * 10


def test_job_of_the_outbox_sees_what_its_publisher_wrote(stage: Stage) -> None:
    """The broker was down when it was fired."""
    key, target = new_keys(2)
    stage.broker.stop()
    try:
        with stage.adopted.consistent_session():
            stage.write(key)
            fire(stage, "fire.note", key, target)
    finally:
        stage.broker.start()
    assert stage.noted(target) == ["seen"]


def test_next_attempt_and_replay_see_what_the_publisher_wrote(stage: Stage) -> None:
    """A dead letter that is replayed later, too."""
    key, target = new_keys(2)
    stage.desk.client().set(f"{target}:failures", 1)
    with stage.adopted.consistent_session():
        stage.write(key)
        fire(stage, "fire.note", key, target, 1)
    assert stage.noted(target) == ["seen"]
    letters, which = stage.adopted.ledger.letters, Which()
    wait_until(lambda: letters.find(which, limit=1), SECONDS, "it is a dead letter")
    why = {"actor": "ann", "reason": "mended"}
    assert letters.replay(which, **why, new_id=uuid, limit=1)
    assert stage.noted(target, 2) == ["seen"] * 2
