"""The kill ledger of `tests/chaos`, small enough for every run."""

from collections.abc import Iterator
from pathlib import Path
from random import Random
from secrets import randbits

import pytest

from tests.chaos.stage import Stage, survive

JOBS = 80
STRIKES = ("worker", "broker", "database", "relay", "child")
SECONDS = 60.0


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    """Everything, with a ledger in a file, on Valkey."""
    with Stage(tmp_path).running() as running:
        yield running


def test_no_job_is_lost_to_a_kill(stage: Stage) -> None:
    """Each job is done or dead when a worker, broker, database, relay and child were lost."""
    seed = randbits(32)
    random = Random(seed)  # noqa: S311 - moments, no secrets

    verdict = survive(stage, jobs=JOBS, strikes=STRIKES, random=random, seconds=SECONDS)

    said = f"seed={seed} {verdict}"
    assert verdict.accepted == JOBS, said
    assert not verdict.lost, said
    assert not verdict.repeated, said
