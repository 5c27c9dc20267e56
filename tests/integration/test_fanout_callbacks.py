"""A callback gets the response, once, whoever dies."""

import subprocess
import sys
from collections.abc import Iterator
from time import perf_counter

import pytest
from celery import chain

from resilience.tasks import FanOut, part
from resilience.testing.process import import_path, inherited_env
from resilience.testing.waiting import wait_until
from tests.integration.apps.stage import SECONDS, TOO_LATE, Stage, new_key, running_stage

SHORT = 1.0
LONG = 30.0
AFTER_DEADLINE_SECONDS = 0.5
BUSY_SECONDS = 1.0
"""What a busy machine may add."""
DYING_CALLER = "tests.integration.apps.dying_caller"


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A worker of the app in apps/parts.py."""
    with running_stage(tmp_path_factory) as running:
        yield running


def check_once(stage: Stage, key: str) -> None:
    """Check that the callback that noted in *key* ran once, and will not run again."""
    wait_until(lambda: stage.fan_in.take_due() == ([], None), SECONDS, "nothing is due")
    queues = ["celery", "alpha", "beta"]
    wait_until(lambda: not stage.broker.waiting(queues), SECONDS, "no message is left")
    assert len(stage.noted(key)) == 1


def test_callback_gets_the_response_when_all_parts_are_in(stage: Stage) -> None:
    """It comes at once, and is what a caller gets."""
    key = new_key()
    fan_out = FanOut(good=stage.s("echo", 1), bad=stage.s("fail", "x"))

    pending = fan_out.apply_async(budget=LONG, on_complete=stage.s("note", key))

    assert stage.await_note(key, LONG / 2) == pending.get().to_json()
    check_once(stage, key)


def test_callback_comes_when_a_required_part_fails(stage: Stage) -> None:
    """It comes at once, and says so."""
    key, slow = new_key(), new_key()
    fan_out = FanOut(user=part(stage.s("fail", "x"), required=True), slow=stage.s("hold", slow, 1))

    fan_out.apply_async(budget=LONG, on_complete=stage.s("note", key))

    assert stage.await_note(key, LONG / 2)["_meta"]["level"] == 4
    stage.let_go(slow)
    check_once(stage, key)


@pytest.mark.parametrize("ask", [True, False], ids=["caller-asks", "caller-is-busy"])
def test_callback_comes_at_the_deadline(
    stage: Stage,
    ask: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    """Whether anybody waits for the response or not, it comes when the budget is spent."""
    key = new_key()
    fan_out = FanOut(slow=stage.s("hold", key, 1), fast=stage.s("echo", 2))
    began = perf_counter()

    pending = fan_out.apply_async(budget=SHORT, on_complete=stage.s("note", key))
    if ask:
        pending.get()
    noted = stage.await_note(key)

    assert perf_counter() - began < SHORT + AFTER_DEADLINE_SECONDS + BUSY_SECONDS
    assert noted == pending.get().to_json()
    assert noted["_meta"]["missing"] == ["slow"]
    stage.let_go(key)
    check_once(stage, key)


def test_callback_comes_when_the_caller_was_killed(stage: Stage) -> None:
    """A SIGKILL right after `apply_async` takes nothing away: it runs, once, and in time."""
    key = new_key()
    caller = subprocess.run(  # noqa: S603 - of this directory
        [sys.executable, "-m", DYING_CALLER, key, str(SHORT)],
        env=inherited_env({**stage.env, "PYTHONPATH": import_path()}),
        capture_output=True,
        check=False,
    )
    assert caller.returncode < 0, caller.stderr.decode()

    noted = stage.await_note(key)

    late = perf_counter() - float(caller.stdout) - SHORT
    assert late < AFTER_DEADLINE_SECONDS + BUSY_SECONDS
    assert noted["data"] == {"fast": 2}
    assert noted["_meta"]["reasons"]["slow"] in TOO_LATE
    stage.let_go(key)
    check_once(stage, key)


def test_callback_may_be_a_canvas_or_ignore_the_response(stage: Stage) -> None:
    """Any signature will do: a chain gets the response in front, an immutable one does not."""
    key, also = new_key(), new_key()
    fan_out = FanOut(one=stage.s("echo", 1))

    fan_out.apply_async(
        budget=LONG,
        on_complete=chain(stage.s("echo"), stage.s("join", "more"), stage.s("note_any", key)),
    )
    fan_out.apply_async(
        budget=LONG, on_complete=stage.app.tasks["note_any"].si("without response", also)
    )

    response, more = stage.await_note(key)
    assert (response["data"], more) == ({"one": 1}, "more")
    assert stage.await_note(also) == "without response"


def test_second_callback_has_the_same_id(stage: Stage) -> None:
    """Should one be published twice after a crash, its id tells: it is the fan-out's own."""
    key = new_key()
    fan_out = FanOut(one=stage.s("echo", 1))

    pending = fan_out.apply_async(budget=LONG, on_complete=stage.s("note", key))

    stage.await_note(key)
    assert stage.worker is not None
    assert f"note[{pending.id}-complete]" in stage.worker.log
