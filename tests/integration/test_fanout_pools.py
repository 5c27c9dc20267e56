"""Fan-outs on the other pools of Celery: the basics are the same on all of them."""

from collections.abc import Iterator

import pytest

from resilience.levels import Level
from resilience.partial import PartialResponse
from resilience.tasks import FanOut, part
from tests.integration.apps.stage import SECONDS, Stage, new_key, running_stage

SHORT = 0.5
LONG = 30.0


@pytest.fixture(
    scope="module", params=["threads", "solo", pytest.param("gevent", marks=pytest.mark.long)]
)
def stage(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stage]:
    """A worker of the app in apps/parts.py, on each pool that is installed."""
    pool = request.param
    with running_stage(tmp_path_factory, pool=pool) as running:
        yield running


def test_parts_answer_fail_and_run_again(stage: Stage) -> None:
    """Values, failures, fallbacks, retries and replacements all arrive."""
    fan_out = FanOut(
        value=stage.s("echo", 1),
        failure=stage.s("fail", "x"),
        rejected=stage.s("reject"),
        ignored=stage.s("ignore"),
        fallback=stage.s("degrade"),
        again=stage.s("retry", new_key(), 2),
        again_by_itself=stage.s("retry_by_itself", new_key(), 2),
        replaced=stage.s("replace", "chain"),
    )

    response = fan_out.apply_async(budget=LONG).get()

    assert response.data == {
        "value": 1,
        "fallback": "static",
        "again": 3,
        "again_by_itself": 3,
        "replaced": ["first", "chain"],
    }
    assert response.reasons == {
        "failure": "ConnectionError",
        "rejected": "Reject",
        "ignored": "Ignore",
        "fallback": "ConnectionError",
    }
    assert response.level is Level.STATIC


def test_required_part_ends_it_at_once(stage: Stage) -> None:
    """A failed required part is not waited with."""
    fan_out = FanOut(user=part(stage.s("fail", "x"), required=True))

    assert fan_out.apply_async(budget=LONG).get().level is Level.FAILED


def test_revoked_part_is_missing_at_once(stage: Stage) -> None:
    """The worker drops it before it reaches the pool, and says so."""
    queue, task_id = new_key(), new_key()
    stage.app.control.revoke(task_id, reply=True, limit=1, timeout=SECONDS)
    fan_out = FanOut(part=stage.s("echo", 1).set(queue=queue, task_id=task_id))

    pending = fan_out.apply_async(budget=LONG)
    stage.consume(queue)

    assert pending.get().reasons == {"part": "TaskRevokedError"}


def test_callback_gets_a_partial_response_at_the_deadline(stage: Stage) -> None:
    """A part that hangs holds up neither the response nor, elsewhere in the pool, the callback."""
    key, busy = new_key(), new_key()
    fan_out = FanOut(slow=stage.s("hold", busy, 1), fast=stage.s("echo", 2))

    pending = fan_out.apply_async(budget=SHORT, on_complete=stage.s("note", key))
    response = pending.get()
    stage.let_go(busy)

    assert response.missing in (["slow"], ["slow", "fast"])
    assert stage.await_note(key) == response.to_json()


def test_fan_out_inside_a_task_is_answered(stage: Stage) -> None:
    """A task may wait for others; a solo worker, which cannot run them beside it, is not stuck."""
    assert stage.worker is not None
    alone = "solo" in stage.worker.command

    response = stage.s("ask_inside", SHORT if alone else LONG).apply_async().get(timeout=LONG)

    if alone:
        assert sorted(response.missing) == ["bad", "good"]
        assert set(response.reasons.values()) == {"DeadlineExceeded"}
    else:
        assert response == PartialResponse(
            data={"good": 1}, missing=["bad"], reasons={"bad": "ConnectionError"}
        )
