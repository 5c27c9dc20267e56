"""Parts of the Degradation page that need no server: what Flower remembers, lists and writes."""

import json
import pickle
from typing import Any

import flower.events  # type: ignore[import-untyped]
import pytest

from resilience.events import (
    AnswerDegraded,
    BudgetExceeded,
    Event,
    FallbackDrilled,
    FallbackDrillFailed,
    FallbacksExhausted,
)
from resilience.monitor.celery_events import celery_event
from resilience.monitor.flower.letters import _filled
from resilience.monitor.flower.state import DegradationState, noted
from resilience.monitor.flower.timeline import post_mortem, timeline
from tests.every_event import make

PLAIN = DegradationState.__base__
ENVELOPE = {"hostname": "w@h", "timestamp": 5.0, "local_received": 5.0, "clock": 1}
DEGRADED = {"level": 3, "reason": "CircuitOpenError", "source": "static", "dependency": "ranking"}
EVERY = ("type", "uuid", "hostname", "timestamp", "level", "reason", "at", "what", "name", "times")
HOSTILE = "<img src=x onerror=alert(1)>\n\x1b[31m|`[x](y)` " + "long " * 100_000
SHORTER = [HOSTILE[:500]] * 1000


def send(state: Any, kind: str, **fields: Any) -> None:  # noqa: ANN401 - JSON; Flower has no types
    """Let Flower hear of an event."""
    state.event({**ENVELOPE, "type": kind, **fields})


@pytest.fixture
def state() -> DegradationState:
    """Flower's view of a cluster in which one task has succeeded."""
    made = DegradationState(max_tasks_in_memory=100)
    send(made, "task-received", uuid="one", name="shop.rank")
    send(made, "task-succeeded", uuid="one", result="[]", runtime=0.1)
    return made


def test_degraded_answer_is_noted_and_the_task_has_still_succeeded(state: DegradationState) -> None:
    """Celery would call the state of the task DEGRADED, and nobody would find its result."""
    send(state, "task-degraded", uuid="one", name="shop.rank", **DEGRADED)
    task = state.tasks["one"]
    assert (task.state, task.degradation) == ("SUCCESS", "STATIC: CircuitOpenError")
    assert "source: static" in task.degradation_details
    assert state.answers[0]["id"] == "one"


def test_fan_out_is_an_answer_and_no_task(state: DegradationState) -> None:
    """Its id is no task's: a row of the task list would have no name and never end."""
    send(state, "task-partial", uuid="fan-out", level=2, missing=["ads"], degraded=[])
    assert set(state.tasks) == {"one"}
    assert state.answers[0]["fields"]["missing"] == "ads"


def test_timeline_has_drills_that_failed_only(state: DegradationState) -> None:
    """The others are routine, and come by the thousand."""
    for kind in (FallbackDrilled, FallbackDrillFailed):
        sent = celery_event(make(kind, "x"))
        assert sent is not None
        state.event({**ENVELOPE, **sent})

    assert [one["kind"] for one in state.incidents] == ["answer-fallback-drill-failed"]


@pytest.mark.parametrize("kind", [AnswerDegraded, BudgetExceeded, FallbacksExhausted])
def test_answer_that_was_not_full_is_in_the_table_of_answers(
    state: DegradationState, kind: type[Event]
) -> None:
    """Under the name that `CeleryEvents` sends it by, in a job or elsewhere."""
    sent = celery_event(make(kind, "x"))
    assert sent is not None
    send(state, sent.pop("type"), **sent)
    assert len(state.answers) == 1
    assert not state.incidents


def test_what_was_heard_outlives_a_restart(state: DegradationState) -> None:
    """With Flower's option `persistent`."""
    send(state, "task-degraded", uuid="one", **DEGRADED)
    send(state, "breaker-opened", dependency="ranking")
    state.levels.append((1, 3))
    again = pickle.loads(pickle.dumps(state))  # noqa: S301 - as Flower does
    assert list(again.answers) == list(state.answers)
    assert [one["kind"] for one in again.incidents] == ["breaker-opened"]
    assert list(again.levels) == [(1, 3)]
    assert again.tasks["one"].degradation == "STATIC: CircuitOpenError"


def test_what_flower_saved_without_this_library_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its tasks have the fields that the task list asks for."""
    monkeypatch.setattr(flower.events, "EventsState", PLAIN)
    plain = PLAIN(max_tasks_in_memory=100)
    send(plain, "task-received", uuid="old", name="shop.rank")
    saved = pickle.dumps(plain)
    monkeypatch.setattr(flower.events, "EventsState", DegradationState)
    adopted = pickle.loads(saved)  # noqa: S301 - as Flower does
    assert adopted.tasks["old"].as_dict()["degradation"] is None
    send(adopted, "task-degraded", uuid="old", **DEGRADED)
    assert adopted.tasks["old"].as_dict()["degradation"] == "STATIC: CircuitOpenError"


@pytest.mark.parametrize(
    "value",
    [HOSTILE, SHORTER, {"a": {"b": HOSTILE}}, float("nan"), float("-inf"), None, True, []],
    ids=["text", "texts", "mapping", "nan", "infinite", "none", "true", "empty"],
)
def test_whatever_an_event_holds_is_short_and_json(value: object) -> None:
    """Any program that reaches the broker can send events."""
    fields = dict.fromkeys(EVERY, value)
    found = noted(fields | {str(number): value for number in range(1000)})
    text = json.dumps(found, allow_nan=False)
    assert len(text) < 100_000
    [entry] = timeline([found], [])
    assert isinstance(entry["at"], int | float)
    post_mortem({"levels": [[], []], "unknown": {}}, [entry], "shop")


def test_nothing_of_others_is_markup_in_a_post_mortem() -> None:
    """Neither Markdown nor HTML, and each entry is one line of the table."""
    audited = [
        {"at": 7.0, "what": "hold", "name": HOSTILE, "actor": "a|b\n# c", "reason": HOSTILE},
        {"at": float("1e300"), "what": "odd", "name": "", "actor": "", "reason": None},
    ]
    found = {"levels": [[1], [3]], "unknown": {"store": HOSTILE}, "reasons": [], "level": None}
    text = post_mortem(found, timeline([], audited), "<shop>")
    plain = text.replace("\\<", "").replace("\\|", "").replace("\\[", "").replace("\\`", "")
    assert "<" not in plain
    assert "[x" not in plain
    table = [line for line in plain.splitlines() if line.startswith("|")]
    assert len(table) == 4
    assert {line.count("|") for line in table} == {6}
    assert "Worst level of the last hour: STATIC" in text


def test_crowd_of_events_is_one_entry_that_counts_them(state: DegradationState) -> None:
    """Thousands of jobs that are parked push nothing else out of what Flower remembers."""
    send(state, "feature-shed", feature="ads", rule="load")
    for _ in range(3000):
        send(state, "job-parked", dependency="mail", task="shop.deliver", id="x", times="x")
        send(state, "job-parked", dependency="ranking", task="shop.rank", id="x")
    assert [(one["name"], one.get("times")) for one in state.incidents] == [
        ("ads", None),
        ("mail", 3000),
        ("ranking", 3000),
    ]


def test_circuits_are_listed_once() -> None:
    """The store knows all changes of circuits; events tell of the same again."""
    heard = noted({**ENVELOPE, "type": "breaker-opened", "dependency": "ranking"})
    other = noted({**ENVELOPE, "type": "feature-shed", "feature": "ads", "rule": "load"})
    change = {"at": 5.0, "event": "CircuitOpened", "what": "CircuitOpened", "name": "ranking"}
    assert [one["what"] for one in timeline([heard, other], [change])] == [
        "CircuitOpened",
        "feature-shed",
    ]
    assert len(timeline([heard, other], [])) == 2


@pytest.mark.parametrize(
    ("new", "filled"),
    [
        pytest.param({"key": "b", "token": "***"}, {"key": "b", "token": "s3"}, id="left alone"),
        pytest.param({"key": "a", "token": "new"}, {"key": "a", "token": "new"}, id="written out"),
        pytest.param({"key": "a"}, {"key": "a"}, id="taken out"),
    ],
)
def test_hidden_values_stay_where_they_were(new: object, filled: object) -> None:
    """An operator edits what he sees; the job gets what he does not see."""
    shown, kept = {"key": "a", "token": "***"}, {"key": "a", "token": "s3"}
    assert _filled([[new]], [[shown]], [[kept]]) == [[filled]]


@pytest.mark.parametrize(
    "new", [{"key": "***", "token": "***"}, {"other": "***"}, {"key": "a-***"}, {"key": ["***"]}]
)
def test_hidden_value_cannot_be_moved(new: object) -> None:
    """A secret would be shown where nobody knows that it is one; three stars would be sent."""
    shown, kept = {"key": "a", "token": "***"}, {"key": "a", "token": "s3"}
    with pytest.raises(ValueError, match="stands for a value"):
        _filled([new, 1], [shown], [kept])
    with pytest.raises(ValueError, match="stands for a value"):
        _filled([shown, "***"], [shown], [kept])
