"""Who reads while the primary is down says how old the answer may be, and so does what follows."""

from collections.abc import Iterator
from typing import Any

import pytest
from celery import chain, chord

from resilience import Level, Outcome
from resilience.tasks import FanOut
from tests.integration.apps.positions_stage import SECONDS, Stage, new_keys, running_stage
from tests.replicated import Stage as Replicated


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory, replicated: Replicated) -> Iterator[Stage]:
    """A replica that lags, and a primary that is gone."""
    with running_stage(tmp_path_factory, replicated) as running:
        running.fall_behind()
        [key] = new_keys(1)
        with running.adopted.consistent_session() as session:
            running.write(key)
            running.seen = session.token()
        running.primary.stop()
        yield running
        running.primary.start()


def outcome_of(stage: Stage, canvas: Any) -> Any:  # noqa: ANN401 - any canvas
    """Run *canvas* after what was written before the primary was gone; return what it answers."""
    with stage.adopted.consistent_session(token=stage.seen):
        return canvas.apply_async().get(timeout=SECONDS)


def assert_stale(outcome: Any) -> None:  # noqa: ANN401 - an outcome
    """Check that *outcome* says of which databases a read was stale, and by how much."""
    assert isinstance(outcome, Outcome)
    assert (outcome.level, outcome.reason) == (Level.STALE, "ReadStale")
    assert outcome.source == "default"
    assert outcome.age is None or outcome.age > 0


def test_outcome_says_that_a_read_was_stale(stage: Stage) -> None:
    """The body answered, and no fallback."""
    outcome = outcome_of(stage, stage.s("fallback.seen", "nothing"))
    assert_stale(outcome)
    assert outcome.value == []


def test_job_that_needs_nothing_new_is_not_stale(stage: Stage) -> None:
    """The replica has all that it must see."""
    outcome = stage.s("fallback.seen", "nothing").apply_async().get(timeout=SECONDS)
    assert outcome.level is Level.FULL


@pytest.mark.parametrize("kind", ["plain", "resilient"])
def test_what_follows_a_plain_value_knows(stage: Stage, kind: str) -> None:
    """A task without fallbacks returns its plain value; how good it is goes beside it."""
    line = chain(stage.s(f"{kind}.seen", "nothing"), stage.s("fallback.echo"))
    assert_stale(outcome_of(stage, line))
    line = chain(
        stage.s(f"{kind}.seen", "nothing"), stage.s("plain.echo"), stage.s("fallback.echo")
    )
    assert_stale(outcome_of(stage, line))


@pytest.mark.parametrize("kind", ["plain", "resilient", "fallback"])
def test_body_of_a_chord_knows(stage: Stage, kind: str) -> None:
    """One stale member is enough."""
    header = [stage.s("plain.echo", 1), stage.s(f"{kind}.seen", "nothing")]
    assert_stale(outcome_of(stage, chord(header, stage.s("fallback.echo"))))


@pytest.mark.parametrize("kind", ["resilient", "fallback"])
def test_response_of_a_fan_out_knows(stage: Stage, kind: str) -> None:
    """It names the part as degraded."""
    with stage.adopted.consistent_session(token=stage.seen):
        fan_out = FanOut(old=stage.s(f"{kind}.seen", "nothing"), new=stage.s("resilient.echo", 1))
        response = fan_out.apply_async(budget=SECONDS).get()
    meta = response.to_json()["_meta"]
    assert (meta["level"], meta["degraded"], meta["missing"]) == (1, ["old"], [])
    assert meta["reasons"] == {"old": "ReadStale"}
