"""Who comes after several jobs reads what each of them has written, whichever ended last.

One member writes before the replica hears of nothing more, and ends last; the other one writes then
and ends first. What the last one has seen, the replica has.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from celery import chain, chord

from resilience.tasks import FanOut
from resilience.testing.waiting import wait_until
from tests.integration.apps.positions_stage import SECONDS, Stage, new_keys, running_stage
from tests.replicated import Stage as Replicated

KINDS = ("plain", "resilient")


@pytest.fixture(scope="module", params=["redis", "file"])
def running(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    replicated: Replicated,
) -> Iterator[Stage]:
    """Servers and a worker; with results in Redis, or where Celery polls for a chord's members."""
    backend = None if request.param == "redis" else f"file://{tmp_path_factory.mktemp('results')}"
    with running_stage(tmp_path_factory, replicated, backend=backend) as stage:
        yield stage


@pytest.fixture
def stage(running: Stage) -> Iterator[Stage]:
    """A replica that lags."""
    running.fall_behind()
    yield running
    running.link.resume()


def members(stage: Stage, kind: str, keys: Sequence[str]) -> list[Any]:
    """Return the member that writes *keys[0]* and ends first, and the one that ends last."""
    first, last = keys
    return [stage.s(f"{kind}.wait_and_write", first), stage.s(f"{kind}.write_and_wait", last)]


def begin(stage: Stage, keys: Sequence[str]) -> None:
    """Wait until both members run; then the replica has what was written, and nothing more."""
    for key in keys:
        stage.noted(f"{key}:started")
    stage.stall_again()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("store", ["up", "away"])
def test_body_of_a_chord_sees_the_member_that_ended_first(
    stage: Stage, kind: str, store: str
) -> None:
    """Also if the store was away when that member ended, and is back: the primary answers then."""
    keys = new_keys(2)
    result = chord(members(stage, kind, keys), stage.s(f"{kind}.seen")).apply_async()
    begin(stage, keys)
    if store == "away":
        stage.store.stop()
    stage.let_go(keys[0])
    result.parent.results[0].get(timeout=SECONDS)
    if store == "away":
        stage.store.start()
        wait_until(stage.answers, SECONDS, "the store is found")
    stage.let_go(keys[1])
    assert result.get(timeout=SECONDS) == keys


def test_body_that_is_a_chain_sees_it_too(stage: Stage) -> None:
    """As all that comes after."""
    keys = new_keys(2)
    body = chain(stage.s("resilient.echo"), stage.s("plain.seen"))
    result = chord(members(stage, "plain", keys), body).apply_async()
    begin(stage, keys)
    stage.let_go(keys[0])
    wait_until(lambda: written(stage, keys[0]), SECONDS, "it is written")
    stage.let_go(keys[1])
    assert result.get(timeout=SECONDS) == keys


def written(stage: Stage, key: str) -> bool:
    """Tell whether the primary has the row *key*."""
    return bool(stage.s("always.seen", key).apply_async().get(timeout=SECONDS))


def test_callback_and_caller_of_a_fan_out_see_all_parts(stage: Stage) -> None:
    """The callback whoever publishes it; the caller in a session."""
    keys, target = new_keys(2), new_keys(1)[0]
    first, last = members(stage, "resilient", keys)
    callback = chain(stage.s("plain.seen"), stage.s("plain.keep", target))
    with stage.adopted.consistent_session():
        pending = FanOut(first=first, last=last).apply_async(budget=SECONDS, on_complete=callback)
        begin(stage, keys)
        stage.let_go(keys[0])
        payload = lambda: stage.adopted.fan_in.payloads(pending.id, ["first"])  # noqa: E731
        wait_until(payload, SECONDS, "the first part is in")
        stage.let_go(keys[1])
        assert stage.noted(target, 2) == keys
        assert pending.get().level == 0
        assert stage.s("plain.seen", keys).apply_async().get(timeout=SECONDS) == keys


def test_callback_at_the_deadline_sees_the_parts_that_came_in(stage: Stage) -> None:
    """A worker's main process publishes it."""
    keys, target = new_keys(2), new_keys(1)[0]
    first, last = members(stage, "resilient", keys)
    callback = chain(stage.s("plain.seen"), stage.s("plain.keep", target))
    FanOut(first=first, last=last).apply_async(budget=3.0, on_complete=callback)
    begin(stage, keys)
    stage.let_go(keys[0])
    assert stage.noted(target) == [keys[0]]
    stage.let_go(keys[1])


def test_chord_of_fan_outs_sees_their_parts(stage: Stage) -> None:
    """A job that awaits a response has seen what its parts have."""
    keys = new_keys(4)
    header = [stage.s("fan", keys[:2]), stage.s("fan", keys[2:])]
    assert chord(header, stage.s("plain.seen")).apply_async().get(timeout=SECONDS) == keys
