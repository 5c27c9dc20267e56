"""A broker or result backend that hangs or is away never makes anybody late, and fails no task."""

from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery, chain
from celery._state import _task_stack
from celery.result import AsyncResult

from resilience.settings import Settings
from resilience.store import Slot
from resilience.tasks import FanOut, PendingResponse, Resilience
from resilience.tasks.reporting import report_value
from tests.integration.apps.parts import make_app
from tests.integration.apps.stage import (
    SECONDS,
    Stage,
    close_app,
    new_key,
    running_stage,
)
from tests.integration.test_fanout_outages import OUTAGES, Outage, out_of_service
from tests.timing import no_later_than

BUDGET = 0.3
PUBLISH_SECONDS = 5.0
"""Much longer than the budget: who waited for the broker instead would be noticed."""
OUTAGE_TIMEOUT_SECONDS = 0.5
LONG = 30.0


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A worker of the app in apps/parts.py."""
    with running_stage(tmp_path_factory) as running:
        yield running


def fan_out_of(app: Celery) -> FanOut:
    """Return a fan-out of one part."""
    return FanOut(a=app.tasks["echo"].s(1))


def last_part_comes_in(app: Celery, pending: PendingResponse) -> None:
    """Do what a worker does at the end of the only part."""
    report_value(Resilience.of(app), Slot(fan=pending.id, part="a"), 1)


@OUTAGES
def test_short_budget_is_kept_without_a_broker(stage: Stage, outage: Outage) -> None:
    """Also one that is shorter than the publish timeout, whether it has connected before or not."""
    for ask_first in (False, True):
        app = stage.another_app(publish_timeout_seconds=PUBLISH_SECONDS)
        if ask_first:
            assert fan_out_of(app).apply_async(budget=LONG).get().data == {"a": 1}
        with out_of_service(stage.broker, outage), no_later_than(PUBLISH_SECONDS / 2):
            response = fan_out_of(app).apply_async(budget=BUDGET).get()
        close_app(app)

        assert response.reasons == {"a": "Unpublished"}


@pytest.mark.parametrize("budget", [1.0, LONG])
def test_parts_are_children_of_the_task_that_asks(stage: Stage, budget: float) -> None:
    """However they are published, traces and monitors see who asked."""
    queue, asking = new_key(), stage.app.tasks["ask_inside"]
    _task_stack.push(asking)
    asking.push_request(id="parent", root_id="root", called_directly=False)
    try:
        FanOut(a=stage.s("echo", 1).set(queue=queue)).apply_async(budget=budget)
    finally:
        asking.pop_request()
        _task_stack.pop()

    (headers,) = stage.broker.headers(queue)
    assert (headers["parent_id"], headers["root_id"]) == ("parent", "root")


@OUTAGES
def test_callback_needs_no_result_backend_to_be_published(stage: Stage, outage: Outage) -> None:
    """It is handed to the broker although its result could not be subscribed to just now."""
    lost = stage.another_app(store_timeout_seconds=OUTAGE_TIMEOUT_SECONDS)
    lost.conf.result_backend = "redis://127.0.0.1:1/0"
    key = new_key()

    with out_of_service(stage.store, outage):
        fan_out_of(lost).apply_async(budget=BUDGET, on_complete=lost.tasks["note"].s(key))

    assert stage.await_note(key)["_meta"]["missing"] == ["a"]
    close_app(lost)


def test_result_of_the_callback_is_stored(stage: Stage) -> None:
    """Nobody waits for it here, but its id is known to whoever wants to."""
    pending = fan_out_of(stage.app).apply_async(
        budget=LONG, on_complete=stage.app.tasks["echo"].si("done")
    )

    result: AsyncResult[Any] = stage.app.AsyncResult(f"{pending.id}-complete")
    assert result.get(SECONDS) == "done"


@pytest.mark.parametrize("canvas", [False, True], ids=["task", "chain"])
def test_one_server_for_all_is_down(stage: Stage, canvas: bool) -> None:  # noqa: FBT001
    """Broker, backend and store in one: the call answers, and the callback's loss is announced."""
    nowhere = "redis://127.0.0.1:1/0"
    events: list[Any] = []
    app = make_app(
        Settings(store_url=nowhere, store_timeout_seconds=OUTAGE_TIMEOUT_SECONDS),
        broker=nowhere,
        backend=nowhere,
        set_as_current=False,
    )
    Resilience.of(app).listeners = (events.append,)
    callback = app.tasks["note_any"].s(new_key())
    on_complete = chain(callback, callback) if canvas else callback

    pending = fan_out_of(app).apply_async(budget=BUDGET, on_complete=on_complete)

    assert pending.get().missing == ["a"]
    failed = [event for event in events if type(event).__name__ == "PublishFailed"]
    assert [event.what for event in failed] == [f"callback of fan-out {pending.id}"]
    assert stage.worker is not None
    close_app(app)


def test_callback_that_cannot_be_published_harms_nobody(stage: Stage) -> None:
    """Not the part that came in last, and it is not tried for ever; operators hear of it."""
    caller, worker = stage.another_app(), stage.another_app()
    unanswered = caller.tasks["echo"].s(1).set(queue=new_key())
    pending = FanOut(a=unanswered).apply_async(budget=LONG, on_complete=caller.tasks["join"].s())
    worker.conf.task_create_missing_queues = False
    worker.conf.task_routes = {"join": {"queue": "nobody declared it"}}

    last_part_comes_in(worker, pending)

    assert pending.get().data == {"a": 1}
    event = stage.await_event("PublishFailed", pending.id)
    assert "nobody declared it" in event["error"]
    assert stage.fan_in.take_due() == ([], None)
    close_app(caller)
    close_app(worker)
