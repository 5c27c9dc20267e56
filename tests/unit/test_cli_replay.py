"""The sample of a replay: how long it is waited for, and what keeps the others back."""

import json
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest

from resilience.testing.waiting import wait_until
from tests.timing import no_later_than
from tests.unit.desk import Desk

SECONDS = 60.0
REPLAY = ("dead", "replay", "--all", "--sample", "1", "--reason", "x")
SOON = 10.0
"""Later than a sample of a tenth of a second, and sooner than one of thirty, as is the default."""


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    """A desk with three letters."""
    made = Desk(tmp_path / "ledger.sqlite3")
    for name in ("one", "two", "three"):
        made.bury(name)
    yield made
    made.ledger.close()


def test_sample_is_waited_for_no_longer_than_the_operator_says(desk: Desk) -> None:
    """No worker runs it, so the others follow when the time is up."""
    with no_later_than(SOON):
        said = desk.said(*REPLAY, "--sample-seconds", "0.1")

    assert said["sample"] == {"done": 0, "dead": 0, "failed": 0, "under_way": 1}
    assert list(said["replayed"]) == ["one", "two", "three"]


def test_sample_has_the_time_that_the_operator_gives_it(desk: Desk) -> None:
    """The others wait until it has ended."""

    def finish_one() -> None:
        [job] = wait_until(
            lambda: desk.ledger.take(1, owner="relay", lease_seconds=SECONDS), SECONDS, "one is due"
        )
        desk.ledger.finish([job.id])

    worker = Thread(target=finish_one)
    worker.start()
    said = desk.said(*REPLAY, "--sample-seconds", "1h")
    worker.join(SECONDS)

    assert said["sample"] == {"done": 1, "dead": 0, "failed": 0, "under_way": 0}
    assert list(said["replayed"]) == ["one", "two", "three"]


def test_sample_that_fails_again_keeps_the_others_from_being_replayed(desk: Desk) -> None:
    """One attempt is enough to see that the cause is still there, even if more are to come."""
    desk.alter(
        "CREATE TRIGGER fails AFTER UPDATE OF origin ON resilience_jobs"
        " BEGIN UPDATE resilience_jobs SET attempts = 1 WHERE id = NEW.id; END"
    )

    done = desk.run(*REPLAY, "--sample-seconds", "0.1", "--json")

    said = json.loads(done.stdout)
    assert (done.exit_code, said["stopped"]) == (1, True)
    assert said["sample"] == {"done": 0, "dead": 0, "failed": 1, "under_way": 0}
    assert "Stopped: 2 letters were not replayed" in done.stderr
    assert desk.letters() == ["two", "three"]
