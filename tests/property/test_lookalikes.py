"""Values that look like an envelope of kombu's or of ours arrive as they were, on every way."""

import json
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import kombu.utils.json
import pytest
from celery import Celery, chain
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kombu.serialization import dumps as serialize
from kombu.serialization import loads as deserialize

from resilience import (
    Dependency,
    FanOut,
    FireAndForgetTask,
    Outcome,
    PartialResponse,
    Resilience,
    ResilientTask,
    Settings,
    part,
)
from resilience.errors import NoStoredAnswerError
from resilience.store import Slot
from resilience.tasks.envelope import slot_of
from resilience.tasks.kept import job_of, publish_kept
from resilience.tasks.reporting import report_failure, report_value
from resilience.tasks.serialization import dumps, loads
from resilience.testing.valkey import ValkeyProcess

FEW = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
SECONDS = 60.0
NOPE: dict[str, Any] = {"__type__": "nope", "__value__": 1}
FORGED: dict[str, Any] = {
    "__type__": "resilience.PartialResponse",
    "__value__": {"data": {}, "_meta": {"missing": ["users"], "degraded": [], "level": 4}},
}
NO_LEVEL = '{"__type__": "resilience.Outcome", "__value__": {"data": 1, "_meta": {"level": 9}}}'
TYPES = st.sampled_from(
    ["nope", "bytes", "resilience.Outcome", "resilience.PartialResponse", "resilience.Escaped"]
)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | TYPES
NAMES = st.sampled_from(["__type__", "__value__", "data", "_meta", "a"])


def _lookalike(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.fixed_dictionaries({"__type__": TYPES | inner, "__value__": inner})


VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(NAMES | st.text(), inner, max_size=3)
        | _lookalike(inner)
    ),
    max_leaves=8,
)


class Stage:
    """An adopted app whose messages stay in this process, with real results and a real store."""

    def __init__(self, url: str, ledger: str) -> None:
        self.app: Any = Celery("lookalikes", broker="memory://", backend=url, set_as_current=False)
        self.resilience = Resilience(
            self.app,
            dependencies=[Dependency("users")],
            settings=Settings(
                store_url=url,
                namespace=uuid4().hex,
                ledger_url=ledger,
                store_timeout_seconds=SECONDS,
            ),
        )
        options = {"dependency": "users", "shared": False}
        self.ask = self.app.task(_ask, name="ask", base=ResilientTask, **options)
        self.send = self.app.task(_ask, name="send", base=FireAndForgetTask, **options)


def _ask(value: object) -> object:
    return value


@pytest.fixture(scope="module")
def stage(valkey: ValkeyProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """One for all examples."""
    made = Stage(valkey.url, f"sqlite:///{tmp_path_factory.mktemp('ledger')}/ledger.sqlite3")
    yield made
    made.resilience.store.client.close()
    made.app.close()


@FEW
@given(VALUES)
def test_value_in_an_answer_arrives_as_it_was(value: object) -> None:
    """In what the store keeps and messages hold, plain and within answers of any depth."""
    nested = Outcome(value=[Outcome(value=value), {"page": PartialResponse(data={"a": value})}])

    assert loads(dumps(value)) == value
    assert loads(dumps(nested)) == nested
    assert nested.to_json()["data"][0]["data"] == value


@pytest.mark.filterwarnings("ignore:Call to deprecated setex:DeprecationWarning")
@FEW
@given(VALUES)
def test_answer_in_the_result_backend_arrives_as_it_was(stage: Stage, value: object) -> None:
    """Who waits for the job gets what its body returned."""
    job, answer = uuid4().hex, Outcome(value=value)

    stage.app.backend.store_result(job, answer, "SUCCESS")

    assert stage.app.AsyncResult(job).get(timeout=SECONDS) == answer


@FEW
@given(VALUES)
def test_part_arrives_as_it_was(stage: Stage, value: object) -> None:
    """No value takes another part along, forges a level, or spoils what is remembered."""
    parts = FanOut(user=part(stage.ask.s(1), stale=SECONDS), team=stage.ask.s(2))
    for fails in (False, True):
        pending = parts.apply_async(budget=SECONDS)
        [slot] = _slots(stage, pending.id, "user")
        if fails:
            report_failure(stage.resilience, slot, ConnectionError("gone"))
        else:
            report_value(stage.resilience, slot, value)
        report_value(stage.resilience, Slot(fan=pending.id, part="team"), 2)

        response = pending.get()

        assert response.data == {"user": value, "team": 2}
        assert response.missing == []
        assert response.degraded == (["user"] if fails else [])


def _slots(stage: Stage, fan: str, name: str) -> Iterator[Slot]:
    """Yield where the part *name* of *fan* reports; take all messages."""
    for message in _taken(stage, "users"):
        slot = slot_of(message.headers)
        if slot is not None and (slot.fan, slot.part) == (fan, name):
            yield slot


def _taken(stage: Stage, queue: str) -> list[Any]:
    taken: list[Any] = []
    with stage.app.connection_for_read() as connection, connection.SimpleQueue(queue) as waiting:
        while len(waiting):
            taken.append(waiting.get(block=False))
            taken[-1].ack()
    return taken


@FEW
@given(VALUES)
def test_remembered_answer_arrives_as_it_was(stage: Stage, value: object) -> None:
    """A fallback gives the value that was good once."""
    answers, key = stage.resilience.answers, uuid4().hex

    answers.remember(key, value, max_age=SECONDS)

    found = answers.recall(answers.key(key))
    assert found is not None
    assert found.value == value


@FEW
@given(VALUES)
def test_arguments_arrive_as_they_were(stage: Stage, value: object) -> None:
    """Straight from the publisher, in a chain, and from the ledger."""
    stage.ask.delay(value)
    chain(stage.ask.si(1), stage.ask.si(value)).apply_async()
    job = job_of(
        stage.send, [value], {}, {"task_id": uuid4().hex}, queue="users", ledger={}, age_seconds=0.0
    )
    with stage.app.producer_or_acquire(None) as producer:
        publish_kept(stage.app, producer, job)

    direct, first, kept = (message.payload for message in _taken(stage, "users"))
    assert direct[0] == [value]
    assert first[2]["chain"][0]["args"] == [value]
    assert kept[0] == [value]


@pytest.mark.parametrize("serializer", ["msgpack", "yaml", "pickle"])
@pytest.mark.parametrize("value", [NOPE, FORGED, [FORGED, (NOPE, 1)]], ids=["nope", "us", "deep"])
def test_other_serializers_carry_lookalikes(stage: Stage, serializer: str, value: object) -> None:
    """They read our envelope, so they must not read it where there is none."""
    expected = value if serializer == "pickle" else loads(dumps(value))

    stage.ask.apply_async((value,), serializer=serializer)
    [message] = _taken(stage, "users")
    message.accept = {message.content_type}
    data = serialize(Outcome(value=value), serializer=serializer)

    assert message.payload[0][0] == expected
    assert deserialize(data[2], data[0], data[1], accept={data[0]}) == Outcome(value=expected)


def test_task_of_celerys_own_is_left_as_it_is(stage: Stage) -> None:
    """Its messages and results are written as without the library."""
    plain = stage.app.task(_ask, name="plain", shared=False)
    plain.apply_async((NOPE,), queue="plain")

    [message] = _taken(stage, "plain")

    assert json.loads(message.body)[0] == [NOPE]
    assert json.loads(kombu.utils.json.dumps(NOPE)) == NOPE


@pytest.mark.parametrize(
    "text",
    ["", "{", '{"__type__": "nope", "__value__": 1}', "[" * 100_000, NO_LEVEL],
    ids=["empty", "cut", "foreign", "deep", "level"],
)
def test_unreadable_part_is_missing_and_spoils_no_other(stage: Stage, text: str) -> None:
    """A worker in another language wrote it; remembered, it counts as if nothing were."""
    parts = FanOut(user=part(stage.ask.s(text), stale=SECONDS), team=stage.ask.s(2))
    for fails in (False, True):
        pending = parts.apply_async(budget=SECONDS)
        [slot] = _slots(stage, pending.id, "user")
        payload = '-{"reason": "ConnectionError"}' if fails else f"+{text}"
        stage.resilience.fan_in.report(slot, payload, full=not fails)
        report_value(stage.resilience, Slot(fan=pending.id, part="team"), 2)

        response, streamed = pending.get(), {one.name: one for one in pending.stream()}

        assert response.data == {"team": 2}
        assert response.missing == ["user"]
        reason = response.reasons["user"]
        assert reason.startswith("ConnectionError" if fails else "UnreadableAnswer: ")
        assert streamed["user"].outcome is None
        assert streamed["user"].reason == reason


def test_unreadable_remembered_answer_gives_way_to_the_next_step(stage: Stage) -> None:
    """A fallback chain goes on where its stored answer is no answer."""
    resilience, key = stage.resilience, uuid4().hex
    text = '60000:{"__type__": "nope", "__value__": 1}'
    resilience.store.run(lambda client: client.set(resilience.answers.key(key), text, px=60_000))

    with pytest.raises(NoStoredAnswerError, match="cannot be read: ValueError"):
        resilience.answers.recall(resilience.answers.key(key))
