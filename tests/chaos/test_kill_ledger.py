"""Nothing is lost, whatever is killed and whenever."""

from collections.abc import Iterator
from pathlib import Path
from random import Random
from secrets import randbits

import pytest

from resilience.testing.postgres import PostgresProcess
from resilience.testing.rabbitmq import RabbitProcess
from tests.chaos.stage import KINDS, Stage, survive

pytestmark = [pytest.mark.long, pytest.mark.timeout(1200)]

JOBS = 2000
STRIKES = 50
SECONDS = 180.0


@pytest.fixture(params=["sqlite", "postgresql", "rabbitmq"])
def stage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stage]:
    """Everything, with a ledger in one database or the other, or on the other broker."""
    server: PostgresProcess | None = None
    rabbitmq: RabbitProcess | None = None
    if request.param == "postgresql":
        server = request.getfixturevalue("postgres")
    if request.param == "rabbitmq":
        rabbitmq = request.getfixturevalue("rabbitmq")
    with Stage(tmp_path, server, rabbitmq=rabbitmq).running() as running:
        yield running


def test_each_job_is_done_or_dead_whatever_is_killed(stage: Stage) -> None:
    """Of 2,000 jobs, 50 kills lose none; idempotent ones are done once but for the cut ones."""
    seed = randbits(32)
    random = Random(seed)  # noqa: S311 - moments, no secrets
    strikes = [KINDS[place % len(KINDS)] for place in range(STRIKES)]
    random.shuffle(strikes)

    verdict = survive(stage, jobs=JOBS, strikes=strikes, random=random, seconds=SECONDS)

    print(f"\nseed={seed} died={stage.died} {verdict}")  # noqa: T201 - what `make chaos` is for
    assert verdict.accepted == JOBS
    assert not verdict.lost
    assert not verdict.repeated, stage.history(verdict.repeated)
    assert verdict.recovered
    assert verdict.outbox
