"""What has been written and seen travels with jobs: whoever comes after it reads it."""

from collections.abc import Iterator
from typing import Any

import pytest
from celery import chain, group

from tests.integration.apps.positions_stage import SECONDS, Stage, new_keys, running_stage
from tests.replicated import Stage as Replicated

KINDS = ("plain", "resilient")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, replicated: Replicated) -> Iterator[Stage]:
    """Servers and a prefork worker."""
    with running_stage(tmp_path_factory, replicated) as stage:
        yield stage


@pytest.fixture
def stage(running: Stage) -> Iterator[Stage]:
    """A replica that has caught up, and hears of nothing from now on."""
    running.fall_behind()
    yield running
    running.link.resume()


def value_of(canvas: Any) -> Any:  # noqa: ANN401 - whatever it returns
    """Run *canvas* and return its value."""
    return canvas.apply_async().get(timeout=SECONDS)


def test_read_without_a_position_misses_the_row(stage: Stage) -> None:
    """The replica does lag: what follows would fail without positions."""
    [key] = new_keys(1)
    stage.write(key)
    assert value_of(stage.s("plain.seen", key)) == []


@pytest.mark.parametrize("kind", KINDS)
def test_job_sees_what_its_publisher_wrote(stage: Stage, kind: str) -> None:
    """Also by name."""
    [key] = new_keys(1)
    with stage.adopted.consistent_session():
        stage.write(key)
        first = stage.s(f"{kind}.seen", key).apply_async()
        second = stage.app.send_task(f"{kind}.seen", [key])
    assert first.get(timeout=SECONDS) == [key]
    assert second.get(timeout=SECONDS) == [key]


@pytest.mark.parametrize("kind", KINDS)
def test_chain_sees_what_was_written_before(stage: Stage, kind: str) -> None:
    """Two steps on, behind a task that neither writes nor reads, as well."""
    [key] = new_keys(1)
    assert value_of(chain(stage.s(f"{kind}.write", key), stage.s(f"{kind}.seen"))) == [key]
    [key] = new_keys(1)
    line = [stage.s(f"{kind}.write", key), stage.si(f"{kind}.around")]
    assert value_of(chain(*line, stage.si(f"{kind}.seen", key))) == [key]


@pytest.mark.parametrize("kind", KINDS)
def test_group_behind_a_writer_sees_it(stage: Stage, kind: str) -> None:
    """Each member does."""
    [key] = new_keys(1)
    members = group(stage.s(f"{kind}.seen") for _ in range(2))
    assert value_of(chain(stage.s(f"{kind}.write", key), members)) == [[key], [key]]


@pytest.mark.parametrize("kind", KINDS)
def test_retry_sees_what_the_attempt_before_wrote(stage: Stage, kind: str) -> None:
    """The next attempt goes on from there."""
    [key] = new_keys(1)
    assert value_of(stage.s(f"{kind}.write_and_retry", key)) == [key]
