"""What sessions see that wander between processes while the links to the replicas fail."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from resilience.testing.valkey import ValkeyProcess
from tests.history import MONOTONIC_READS, READ_YOUR_WRITES, WRITES_FOLLOW_READS
from tests.integration.consistency_stage import (
    MANY,
    Stage,
    running_mariadb_stage,
    running_postgres_stage,
)
from tests.integration.consistency_worker import Load

SOME = 300
CAUGHT = 500
"""So many operations catch a router that checks nothing in all three ways whenever it runs."""
SEED = 36
"""Stalls one link for most of the time, and never both: a router that checks nothing is caught."""
NAIVE_SHARE = 1.0
"""A router that checks nothing reads from replicas alone."""
MARKED_MAX = 0.3
"""The links work for most of the time, so that most answers are as they should be."""


@pytest.fixture(scope="module")
def postgres_stage(valkey: ValkeyProcess) -> Iterator[Stage]:
    """A stage of PostgreSQL for all loads that leave the primary alone."""
    with running_postgres_stage(valkey.url) as stage:
        yield stage


@pytest.fixture(scope="module")
def mariadb_stage(valkey: ValkeyProcess) -> Iterator[Stage]:
    """The same of MariaDB."""
    with running_mariadb_stage(valkey.url) as stage:
        yield stage


@pytest.mark.long
def test_checker_finds_all_three_kinds_of_violations_where_nobody_checks_the_replicas(
    postgres_stage: Stage, tmp_path: Path
) -> None:
    """The load is one under which a router that does nothing is caught."""
    verdict = postgres_stage.run(postgres_stage.load("Naive", tmp_path, CAUGHT, seed=SEED))

    assert len(verdict.history) == CAUGHT
    assert {one.guarantee for one in verdict.violations} == {
        READ_YOUR_WRITES,
        MONOTONIC_READS,
        WRITES_FOLLOW_READS,
    }
    assert verdict.replica_share == NAIVE_SHARE


@pytest.mark.long
def test_checker_finds_nothing_where_each_read_is_checked(
    postgres_stage: Stage, tmp_path: Path
) -> None:
    """The load accuses no router that is right."""
    verdict = postgres_stage.run(postgres_stage.load("Careful", tmp_path, SOME, seed=SEED))

    assert len(verdict.history) == SOME
    assert verdict.violations == []
    assert 0.0 < verdict.replica_share < NAIVE_SHARE


def test_sessions_on_postgres_keep_their_guarantees_or_are_told_how_stale_an_answer_is(
    postgres_stage: Stage, tmp_path: Path
) -> None:
    """Replicas answer most reads all the same."""
    assert_guarantees_kept(
        postgres_stage, postgres_stage.load("RoutedAsync", tmp_path, SOME, seed=SEED)
    )


@pytest.mark.long
def test_sessions_on_mariadb_keep_their_guarantees_or_are_told_how_stale_an_answer_is(
    mariadb_stage: Stage, tmp_path: Path
) -> None:
    """Replicas answer most reads all the same."""
    assert_guarantees_kept(mariadb_stage, mariadb_stage.load("Routed", tmp_path, SOME, seed=SEED))


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("router", ["Routed", "Thrifty", "RoutedAsync"])
@pytest.mark.parametrize("seed", [1, 2])
def test_sessions_on_postgres_keep_their_guarantees_for_long(
    postgres_stage: Stage, tmp_path: Path, router: str, seed: int
) -> None:
    """The same, for longer."""
    assert_guarantees_kept(
        postgres_stage, postgres_stage.load(router, tmp_path, 20_000, seed=seed, processes=MANY)
    )


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("router", ["Routed", "Thrifty"])
def test_sessions_on_mariadb_keep_their_guarantees_for_long(
    mariadb_stage: Stage, tmp_path: Path, router: str
) -> None:
    """The same, for longer."""
    assert_guarantees_kept(
        mariadb_stage, mariadb_stage.load(router, tmp_path, 5000, seed=1, processes=MANY)
    )


def assert_guarantees_kept(stage: Stage, load: Load) -> None:
    """Run a load while the links fail, and let it find nothing."""
    verdict = stage.run(load)

    answered = verdict.answered
    assert len(verdict.history) == load.operations
    assert not [one.error for one in verdict.history if one.error]
    assert verdict.violations == []
    assert verdict.replica_share >= 0.7 * NAIVE_SHARE
    assert sum(one.marked for one in answered) <= MARKED_MAX * len(answered)
