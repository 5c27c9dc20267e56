"""What a fan-out says of its parts: how good the whole is, and how old they are."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest

from resilience.levels import Level
from resilience.partial import PartialResponse
from resilience.tasks import FanOut, PendingResponse, part
from tests.integration.apps.stage import Stage, new_key, running_stage

LONG = 30.0
AGE_SECONDS = 289.0
ALLOWED_SECONDS = 60.0


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A worker of the app in apps/parts.py."""
    with running_stage(tmp_path_factory) as running:
        yield running


def get(pending: PendingResponse) -> PartialResponse:
    """Ask as a thread does."""
    return pending.get()


def get_async(pending: PendingResponse) -> PartialResponse:
    """Ask as a coroutine does."""
    return asyncio.run(pending.aget())


def let_age(stage: Stage, pattern: str) -> None:
    """Let the remembered answers under *pattern*, which live for 600 s, be `AGE_SECONDS` old."""
    client = stage.store.client()
    keys = list(client.keys(pattern))
    assert keys
    for key in keys:
        client.pexpire(key, int(1000 * (600 - AGE_SECONDS)))


def aged(stage: Stage, key: str) -> None:
    """Let `remember` answer once, then fail with only an old answer to fall back to."""
    assert stage.s("remember", key).apply_async().get(timeout=LONG).value == 1
    let_age(stage, "*answer:remember:*")
    stage.switch(key)


@pytest.mark.parametrize("ask", [get, get_async])
@pytest.mark.parametrize(
    ("good", "level"),
    [("echo", Level.REDUCED), ("stale_answer", Level.REDUCED), ("degrade", Level.STATIC)],
)
def test_missing_part_is_reduced(stage: Stage, ask: Any, good: str, level: Level) -> None:  # noqa: ANN401
    """An alert on `level > 0` sees a missing part, and a worse part is not hidden by it."""
    arguments = [1] if good == "echo" else []
    fan_out = FanOut(good=stage.s(good, *arguments), bad=stage.s("fail", "refused"))

    response = ask(fan_out.apply_async(budget=LONG))

    assert response.missing == ["bad"]
    assert response.level is level
    assert response.to_json()["_meta"]["level"] == level


@pytest.mark.parametrize("nested", ["inside", "declared"])
def test_part_that_is_missing_in_a_nested_fan_out_is_reduced(stage: Stage, nested: str) -> None:
    """However deep a part is missing, the level of the whole says so."""
    inner = FanOut(good=stage.s("echo", 1), bad=stage.s("fail", "inside"))
    inside = stage.s("ask_inside", LONG) if nested == "inside" else inner

    response = FanOut(page=inside, own=stage.s("echo", 2)).apply_async(budget=LONG).get()

    assert response.missing == ["page.bad"]
    assert response.degraded == []
    assert response.level is Level.REDUCED


def test_callback_stream_and_event_say_that_a_part_is_missing(stage: Stage) -> None:
    """Whoever learns of the response, in whatever way, learns the same level."""
    key = new_key()
    fan_out = FanOut(good=stage.s("partial", 1), bad=stage.s("fail", "refused"))
    pending = fan_out.apply_async(budget=LONG, on_complete=stage.s("note", key))

    parts = {one.name: one.outcome for one in pending.stream()}

    assert parts["good"] is not None
    assert parts["good"].level is Level.REDUCED, "a part of it is missing"
    assert parts["bad"] is None
    assert stage.await_note(key)["_meta"]["level"] == Level.REDUCED
    assert stage.await_event("FanOutFinished", pending.id)["level"] == Level.REDUCED


def test_response_without_a_store_is_reduced(stage: Stage) -> None:
    """A fan-out that could not ask anybody is no full answer."""
    app = stage.another_app(store_url="redis://127.0.0.1:1/0")
    fan_out = FanOut(one=app.tasks["echo"].s(1))

    response = fan_out.apply_async(budget=1.0).get()

    assert (response.missing, response.level) == (["one"], Level.REDUCED)


def test_part_is_never_older_than_its_stale(stage: Stage) -> None:
    """An older answer of the task's own chain is not handed out, and the reason says so."""
    key = new_key()
    aged(stage, key)
    limited = FanOut(metrics=part(stage.s("remember", key), stale=ALLOWED_SECONDS))
    free = FanOut(metrics=stage.s("remember", key))

    response, unlimited = (one.apply_async(budget=LONG).get() for one in (limited, free))

    assert AGE_SECONDS - 1 < unlimited.ages["metrics"] < AGE_SECONDS + LONG
    assert unlimited.level is Level.STALE
    assert response.data == response.ages == {}
    assert response.reasons == {"metrics": "AnswerTooOldError"}
    assert response.level is Level.REDUCED


def test_required_part_that_is_too_old_fails_the_response(stage: Stage) -> None:
    """What is required must not be older than allowed, either."""
    key = new_key()
    aged(stage, key)
    wanted = part(stage.s("remember", key), stale=ALLOWED_SECONDS, required=True)

    assert FanOut(metrics=wanted).apply_async(budget=LONG).get().level is Level.FAILED


def test_nested_part_is_never_older_than_the_stale_of_its_page(stage: Stage) -> None:
    """A part that asked others inside brings nothing along that is older than it may be."""
    key = new_key()
    aged(stage, key)
    page = part(stage.s("remember_inside", key), stale=ALLOWED_SECONDS)

    response = FanOut(page=page).apply_async(budget=LONG).get()

    assert response.reasons == {"page": "AnswerTooOldError"}


def test_younger_answer_stands_in_for_one_that_is_too_old(stage: Stage) -> None:
    """What the fan-out itself remembers is handed out if the task's own chain has older things."""
    key = new_key()
    fan_out = FanOut(metrics=part(stage.s("remember", key), stale=ALLOWED_SECONDS))
    assert fan_out.apply_async(budget=LONG).get().data == {"metrics": 1}
    aged(stage, key)

    response = fan_out.apply_async(budget=LONG).get()

    assert response.data == {"metrics": 1}
    assert response.ages["metrics"] < ALLOWED_SECONDS
    assert response.level is Level.STALE
    assert json.loads(json.dumps(response.to_json()))["_meta"]["sources"] == {"metrics": "stale"}
