"""What is sent of an event as an event of Celery."""

import json
import logging
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from celery import Celery
from celery.events.state import State

from resilience import Resilience
from resilience.events import AnswerDegraded, FanOutFinished, StoreLost
from resilience.events.base import Event
from resilience.levels import Level
from resilience.monitor.celery_events import CeleryEvents, Channel, celery_event, type_of
from resilience.monitor.relay import EventRelay
from resilience.testing.process import inherited_env
from tests.every_event import EVERY, make

WORDS = {"answer", "breaker", "bulkhead", "fault", "feature", "job", "read", "store"}
"""Groups of Celery events, which listeners choose by."""
LARGEST = 64 * 1024
"""Bytes of a message."""
DEGRADED = AnswerDegraded(
    call="recommend",
    dependency="users",
    level=Level.STALE,
    reason="CircuitOpenError",
    error="not called",
    source="stale",
    age=1.5,
)
PARTIAL = FanOutFinished(
    id="fan-1", ended="deadline", level=Level.REDUCED, missing=("a",), degraded=("b", "c")
)
DEAF = """
from celery import Celery
from resilience.events import StoreLost
from resilience.monitor.celery_events import CeleryEvents
listener = CeleryEvents(Celery(broker="{url}"), outside_workers=True)
for _ in range(1_100):
    listener(StoreLost(error="x"))
print("went on")
"""
app = Celery("celery-event", broker="memory://", set_as_current=False)


@app.task(bind=True, name="job", shared=False)
def job(_: Any) -> dict[str, Any] | None:  # noqa: ANN401 - a bound task
    """Return what is sent of a degraded answer here."""
    return celery_event(DEGRADED)


@pytest.fixture
def channel() -> Iterator[Channel]:
    """A channel that nobody has read from yet."""
    made = Channel()
    yield made
    made.close()


@pytest.mark.parametrize("text", ["plain", "\x00\n\x1b[2J\udc80\u202e<b>" * 40_000], ids=len)
@pytest.mark.parametrize("kind", EVERY, ids=lambda kind: kind.__name__)
def test_every_event_has_its_fields_as_json(kind: type[Event], text: str) -> None:
    """By name, of bounded size, with the level as a number and times as epoch seconds."""
    event = make(kind, text)
    sent = celery_event(event)

    assert sent is not None
    assert len(json.dumps(sent)) < LARGEST
    assert set(sent) - {"type", "event", "uuid"} == set(event.details())
    for name, value in event.details().items():
        if isinstance(value, str):
            assert sent[name][:1000] == value[:1000]
        elif not isinstance(value, tuple) and name != "reasons":
            assert (type(sent[name]), sent[name]) in {(type(value), value), (int, value)}


def test_types_are_unique_and_of_no_group_that_celery_reads() -> None:
    """`task-*` needs the id of a task, and `worker-*` would be taken for a worker's own."""
    types = {kind: type_of(kind) for kind in EVERY}

    assert len(set(types.values())) == len(EVERY)
    for name in types.values():
        assert re.fullmatch(r"[a-z]+(-[a-z]+)+", name)
        assert name.partition("-")[0] in WORDS
    for word, group in {"Circuit": "breaker", "Queue": "bulkhead", "Feature": "feature"}.items():
        named = {kind for kind in EVERY if kind.__name__.startswith(word)}
        assert named
        assert all(types[kind].startswith(f"{group}-") for kind in named)


def test_degraded_answer_of_a_job_is_an_event_of_its_task() -> None:
    """With the job's id and the task's name; outside of a job there is no task to speak of."""
    in_job = job.apply(task_id="job-1").get()

    assert (in_job["type"], in_job["uuid"], in_job["name"]) == ("task-degraded", "job-1", "job")
    assert (in_job["level"], in_job["reason"], in_job["source"]) == (1, "CircuitOpenError", "stale")
    assert (in_job["age"], in_job["dependency"], in_job["error"]) == (1.5, "users", "not called")
    outside = celery_event(DEGRADED)
    assert outside is not None
    assert (outside["type"], outside["event"]) == ("answer-degraded", "AnswerDegraded")


def test_fan_out_is_an_event_only_if_something_is_missing_or_degraded() -> None:
    """Of a full answer nobody need hear."""
    sent = celery_event(PARTIAL)
    assert sent is not None
    assert (sent["type"], sent["uuid"], sent["level"]) == ("task-partial", "fan-1", 2)
    assert (sent["missing"], sent["degraded"]) == (["a"], ["b", "c"])

    full = FanOutFinished(id="f", ended="complete", level=Level.FULL, missing=(), degraded=())
    assert celery_event(full) is None


@pytest.mark.parametrize("event", [DEGRADED, PARTIAL], ids=lambda event: type(event).__name__)
def test_state_of_celery_goes_on_after_an_event_of_a_task(event: Event) -> None:
    """Flower keeps such a state: a field must take the place of none of its methods."""
    common = {"hostname": "w", "timestamp": 1.0, "local_received": 1.0, "clock": 1, "pid": 1}
    task = job.apply(task_id="job-1").get() if event is DEGRADED else celery_event(event)
    uuid = task["uuid"]
    state = State()
    for sent in (
        {"type": "task-received", "uuid": uuid, "name": "job"},
        {"type": "task-succeeded", "uuid": uuid, "result": "1", "runtime": 0.1},
        task,
        {"type": "task-received", "uuid": uuid, "name": "job"},
        {"type": "task-succeeded", "uuid": uuid, "result": "1", "runtime": 0.1},
        task,
    ):
        state.event({**common, **sent})

    seen = state.tasks[uuid]
    assert seen.state == "SUCCESS"
    assert (seen.level, seen.name) == (task["level"], "job")
    assert seen.as_dict()
    assert seen.info()


def test_channel_drops_what_has_no_room_and_says_how_much(channel: Channel) -> None:
    """Nobody waits for a main process that does not read; later it hears how much is lost."""
    for number in range(10_000):
        channel.put({"number": number})
    taken = list(iter(channel.take, None))
    channel.put({"number": -1})
    [(dropped, last)] = list(iter(channel.take, None))

    assert [one["number"] for _, one in taken] == list(range(len(taken)))
    assert last == {"number": -1}
    assert dropped == 10_000 - len(taken) > 0


def test_event_that_cannot_be_sent_takes_no_other_with_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It is counted, and the log tells of it once; those behind it are sent."""
    own: Celery[Any] = Celery("relay", broker="memory://", set_as_current=False)
    listener = CeleryEvents(own)
    Resilience(own, dependencies=[], listeners=[listener])
    relay, received = EventRelay(SimpleNamespace(app=own)), []
    with own.connection_for_read() as connection, own.connection_for_write() as writes:
        receiver = own.events.Receiver(connection, handlers={"*": received.append})
        with receiver.consumer_context() as (reads, _, _), caplog.at_level(logging.WARNING):
            consumer = SimpleNamespace(event_dispatcher=own.events.Dispatcher(writes))
            assert listener.channel is not None
            for odd in ({}, {"hostname": "taken"}, {"hostname": "taken"}, {}):
                listener.channel.put({"type": "store-lost", "error": "x", **odd})
            for _ in range(3):
                relay._look(consumer)  # noqa: SLF001 - without a worker's timer
            reads.drain_events(timeout=5)
            reads.drain_events(timeout=5)
            relay.shutdown(consumer)

    assert [one["type"] for one in received] == ["store-lost"] * 2
    logged = [one.levelname for one in caplog.records if one.name == "resilience"]
    assert logged == ["ERROR", "WARNING", "WARNING"]
    assert "events of Celery were not sent: TypeError" in caplog.text
    assert "1 events of Celery were dropped" in caplog.text
    assert "Traceback" not in caplog.text


def test_listener_makes_nothing_while_nobody_listens(
    channel: Channel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even the fields: an event then costs one look at a byte that all processes share."""
    listener = CeleryEvents(app)
    listener.channel = channel
    monkeypatch.setattr("resilience.monitor.celery_events.celery_event", pytest.fail)
    listener(StoreLost(error="x"))
    assert channel.take() is None
    monkeypatch.undo()
    channel.wanted = True
    listener(StoreLost(error="x"))
    assert channel.take() == (0, {"type": "store-lost", "error": "x", "event": "StoreLost"})


def test_process_that_is_no_worker_sends_nothing_by_default() -> None:
    """It has no channel, and no thread is started."""
    CeleryEvents(app)(StoreLost(error="x"))


def test_process_that_is_no_worker_never_waits_for_its_broker() -> None:
    """Its broker accepts and never answers: the process goes on, says what is lost, and ends."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"redis://127.0.0.1:{silent.getsockname()[1]}/0"
        command = [sys.executable, "-c", DEAF.format(url=url)]
        done = subprocess.run(  # noqa: S603 - of this file
            command, env=inherited_env({}), capture_output=True, text=True, timeout=60, check=True
        )

    assert done.stdout == "went on\n"
    assert done.stderr == "events of Celery were not sent: more came than the broker took\n"
