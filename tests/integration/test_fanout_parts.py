"""Whatever way a part ends, its fan-out hears of it once, at once, and says it right."""

import os
import signal
from collections.abc import Iterator
from time import perf_counter
from uuid import uuid4

import pytest
from kombu import Connection, Queue

from resilience.levels import Level
from resilience.partial import PartialResponse
from resilience.tasks import FanOut, part
from resilience.tasks.envelope import BUDGET_HEADER, SLOT_HEADER
from resilience.testing.waiting import wait_until
from tests.brokers import forward
from tests.integration.apps.stage import SECONDS, Stage, new_key, running_stage

LONG = 30.0
INFINITY, NAN = float("inf"), float("nan")


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A worker of the app in apps/parts.py."""
    with running_stage(tmp_path_factory) as running:
        yield running


def deliver_again(stage: Stage, queue: str) -> None:
    """Put a second copy of the one message in *queue* there, as a restored one would be."""
    with Connection(stage.broker.url) as connection:
        message = Queue(queue)(connection.default_channel).get()
        forward(message, queue)
        message.requeue()


def ask(stage: Stage, task: str, *args: object) -> PartialResponse:
    """Return the response of a fan-out that has this task as its one part, and all the time."""
    began = perf_counter()
    response = FanOut(part=stage.s(task, *args)).apply_async(budget=LONG).get()
    assert perf_counter() - began < LONG * 2 / 3, "it only ended with its budget"
    return response


@pytest.mark.parametrize(
    ("task", "args", "reason"),
    [
        pytest.param("fail", ["refused"], "ConnectionError", id="raises"),
        pytest.param("reject", [], "Reject", id="rejects"),
        pytest.param("ignore", [], "Ignore", id="ignores"),
        pytest.param("unsendable", [], "EncodeError", id="returns-what-json-cannot"),
        pytest.param("exhaust", [], "AllFallbacksFailedError", id="level-4"),
        pytest.param("overrun", ["key"], "TimeLimitExceeded", id="hard-time-limit"),
        pytest.param("overrun_softly", ["key"], "SoftTimeLimitExceeded", id="soft-time-limit"),
        pytest.param("replace", ["failing task"], "ConnectionError", id="replaced-by-failing"),
        pytest.param("fail_silently", [], "SilentError", id="error-without-a-text"),
        pytest.param("replace", ["failing chain"], "ConnectionError", id="replaced-by-bad-chain"),
        pytest.param("replace", ["failing chord"], "ConnectionError", id="replaced-by-bad-chord"),
    ],
)
def test_part_that_ends_without_a_value_is_missing_at_once(
    stage: Stage, task: str, args: list[object], reason: str
) -> None:
    """Nobody waits for the deadline once it is clear that nothing will come."""
    response = ask(stage, task, *args)

    assert response == PartialResponse(
        data={}, missing=["part"], level=Level.REDUCED, reasons={"part": reason}
    )


@pytest.mark.parametrize(
    ("task", "args", "value"),
    [
        pytest.param("retry_by_itself", [2], 3, id="autoretry"),
        pytest.param("retry", [2], 3, id="self-retry"),
        pytest.param("reject_once", [], 2, id="requeued"),
    ],
)
def test_part_that_runs_again_reports_its_last_run(
    stage: Stage, task: str, args: list[object], value: int
) -> None:
    """A retry or a requeued message is not the end of a part."""
    assert ask(stage, task, new_key(), *args) == PartialResponse(data={"part": value})


@pytest.mark.parametrize("task", ["retry_by_itself", "retry"])
def test_part_fails_when_its_retries_are_used_up(stage: Stage, task: str) -> None:
    """The last error is the reason, and it comes at once."""
    assert ask(stage, task, new_key(), 10).reasons == {"part": "ConnectionError"}


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("task", "task"),
        ("replaced task", "task"),
        ("chain", ["first", "chain"]),
        ("chord", [["a", "b"], "chord"]),
        ("group", ["a", "b"]),
        ("chain with a group", ["first", "first"]),
    ],
)
def test_replacement_answers_for_the_part(stage: Stage, kind: str, value: object) -> None:
    """`self.replace` hands the slot on to whatever has the last word, and to nothing else."""
    assert ask(stage, "replace", kind) == PartialResponse(data={"part": value})


def test_replacement_that_would_never_report_is_refused(stage: Stage) -> None:
    """A task of another class cannot stand in for a part: that is said, not waited for."""
    assert ask(stage, "replace", "plain task").reasons == {"part": "ConfigurationError"}


def test_revoked_part_is_missing_at_once(stage: Stage) -> None:
    """A part revoked before it runs ends there and then."""
    queue, task_id = new_key(), new_key()
    stage.app.control.revoke(task_id, reply=True, limit=1, timeout=SECONDS)

    pending = FanOut(part=stage.s("echo", 1).set(queue=queue, task_id=task_id)).apply_async(
        budget=LONG
    )
    stage.consume(queue)

    assert pending.get().reasons == {"part": "TaskRevokedError"}


def test_terminated_part_is_missing_at_once(stage: Stage) -> None:
    """A part whose process an operator ends is not waited for."""
    key, task_id = new_key(), new_key()
    pending = FanOut(part=stage.s("hold", key, 1).set(task_id=task_id)).apply_async(budget=LONG)
    stage.await_start(key)

    stage.app.control.revoke(task_id, terminate=True, signal="SIGKILL")

    assert pending.get().missing == ["part"]


def test_part_whose_process_dies_is_missing_at_once(stage: Stage) -> None:
    """Whoever kills the process, the worker speaks for it; a part that may run again does so."""
    kill_me, slow = new_key(), new_key()
    pending = FanOut(
        suicide=stage.s("die"),
        killed=stage.s("hold", kill_me, 1),
        again=stage.s("die_once", new_key()),
    ).apply_async(budget=LONG)
    failing = FanOut(
        user=part(stage.s("die"), required=True), slow=stage.s("hold", slow, 1)
    ).apply_async(budget=LONG)
    os.kill(stage.await_start(kill_me), signal.SIGKILL)

    assert pending.get() == PartialResponse(
        data={"again": 2},
        missing=["suicide", "killed"],
        reasons={"suicide": "WorkerLostError", "killed": "WorkerLostError"},
    )
    assert failing.get().reasons == {"user": "WorkerLostError", "slow": "DeadlineExceeded"}
    assert failing.get().level is Level.FAILED
    stage.let_go(slow)


def test_second_delivery_changes_nothing(stage: Stage) -> None:
    """The broker may deliver a message twice; the part runs twice and counts once."""
    queue, twice, key = new_key(), new_key(), new_key()
    fan_out = FanOut(
        twice=stage.s("count", twice, 1).set(queue=queue), slow=stage.s("hold", key, 2)
    )
    pending = fan_out.apply_async(budget=LONG)
    deliver_again(stage, queue)
    stage.consume(queue)
    wait_until(lambda: stage.desk.client().llen(twice) == 2, SECONDS, "it ran twice")
    stage.let_go(key)

    assert pending.get() == PartialResponse(data={"twice": 1, "slow": 2})
    assert stage.announced("PartLate", pending.id) == []


def test_header_of_somebody_else_is_ignored(stage: Stage) -> None:
    """A task is not spoiled by a header that only looks like ours."""
    shapes: list[object] = ["text", ["list"], {"fan": 1, "part": None}, {"unknown": "field"}, {}]
    for header in shapes:
        result = stage.s("echo", 1).apply_async(headers={SLOT_HEADER: header})  # type: ignore[dict-item] # any JSON is

        assert result.get(timeout=SECONDS) == 1


def test_message_names_no_key_no_part_and_no_life(stage: Stage) -> None:
    """The record of the fan-out says where an answer is remembered, whatever a message says."""
    key, store = new_key(), stage.store.client()
    pending = FanOut(slow=stage.s("hold", key, 2)).apply_async(budget=LONG)
    circuits = "{resilience}:circuits"
    store.set("another app's", "kept")
    told = {"fan": pending.id, "part": "slow", "required": True, "stale_seconds": 60}
    forged: list[dict[str, object]] = [
        {**told, "part": "none of it", "stale_key": circuits},
        {**told, "fan": str(uuid4()), "stale_key": "another app's"},
        {**told, "fan": "due:", "stale_key": "another app's"},
        *({**told, "stale_seconds": one, "stale_key": circuits} for one in (INFINITY, NAN, 1e308)),
    ]
    late = {"deadline": 1.0, "total": 1.0, "sent": 0.0, "hops": []}
    for header in forged:
        for more in ({}, {BUDGET_HEADER: late}):
            headers = {SLOT_HEADER: header, **more}
            result = stage.s("echo", 1).apply_async(headers=headers, budget=None)
            result.get(timeout=SECONDS, propagate=False)
    stage.let_go(key)

    assert pending.get().reasons == {}
    assert store.get("another app's") == b"kept"
    assert store.type(circuits) != b"string"
    assert stage.s("echo", 1).apply_async().get(timeout=SECONDS) == 1


def test_children_of_a_part_do_not_report_for_it(stage: Stage) -> None:
    """What a part starts, links to or calls as a function is not the part."""
    assert ask(stage, "start_others", new_key()) == PartialResponse(data={"part": "own"})


def test_bound_callback_of_a_part_still_runs(stage: Stage) -> None:
    """`link` on the signature of a part works as it does on any task."""
    key = new_key()
    sig = stage.s("echo", "linked")
    sig.link(stage.app.tasks["count"].si(key, None))

    response = FanOut(part=sig).apply_async(budget=LONG).get()

    assert response == PartialResponse(data={"part": "linked"})
    wait_until(lambda: stage.desk.client().llen(key) == 1, SECONDS, "the callback ran")


def test_part_that_expired_in_its_queue_never_runs(stage: Stage) -> None:
    """What nobody waits for any longer is dropped before it costs anything."""
    queue, ran = new_key(), new_key()
    fan_out = FanOut(part=stage.s("count", ran, 1).set(queue=queue))
    pending = fan_out.apply_async(budget=0.2)
    assert pending.get().reasons == {"part": "DeadlineExceeded"}

    stage.consume(queue)

    assert stage.await_event("PartLate", pending.id)["part"] == "part"
    assert stage.desk.client().llen(ran) == 0
