"""Apps with other serializers than JSON: jobs are kept, answers arrive, no message loops."""

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from celery import chain, chord, group
from kombu.exceptions import EncodeError

from resilience.errors import ConfigurationError
from resilience.ledger import State
from resilience.levels import Level
from resilience.outcome import Outcome
from resilience.tasks import FanOut, part
from resilience.testing.waiting import wait_until
from tests.compatibility.bench import ANSWER, SECONDS, Bench, running_bench

TYPES = {
    "msgpack": "application/x-msgpack",
    "yaml": "application/x-yaml",
    "pickle": "application/x-python-serialize",
}
OWN_VALUES: dict[str, Any] = {"msgpack": b"\x00\xff", "yaml": None, "pickle": b"\x00\xff"}
UNKEEPABLE: dict[str, list[Any]] = {
    "msgpack": [],
    "yaml": [{1: "a"}],
    "pickle": [{1: "a"}, {"a", "b"}],
}
SERIALIZERS = [
    pytest.param(name, marks=[pytest.mark.long] * (name == "yaml"), id=name) for name in TYPES
]
"""YAML shows nothing that the others do not: it runs in `make chaos` only."""


@pytest.fixture(scope="module", params=SERIALIZERS)
def serializer(request: pytest.FixtureRequest) -> str:
    """The app's serializer for tasks and results; workers accept it, and JSON."""
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory, serializer: str) -> Iterator[Bench]:
    """A worker of apps/publishing.py with the serializer, and the same app in this process."""
    conf = {
        "task_serializer": serializer,
        "result_serializer": serializer,
        "accept_content": [serializer, "json"],
    }
    with running_bench(tmp_path_factory, conf) as bench:
        yield bench


def _await_forgotten(bench: Bench, job: str) -> None:
    ledger = bench.ledger
    wait_until(lambda: ledger.letters.show(job) is None, SECONDS, f"the ledger forgot {job}")


@pytest.mark.parametrize(
    ("task", "kept"),
    [("fire", False), ("fire", True), ("fire_failing", False), ("fire_failing", True)],
)
def test_kept_job_is_published_as_the_app_writes(
    bench: Bench,
    serializer: str,
    task: str,
    kept: bool,  # noqa: FBT001 - pytest's
) -> None:
    """The relay writes it with the app's serializer, from the outbox and after a failure."""
    key = uuid4().hex

    job = bench.publish(task, key, {}, kept=kept).id

    assert bench.facts(key)["value"] == repr(ANSWER)
    assert bench.types(job) == {TYPES[serializer]}
    _await_forgotten(bench, job)


@pytest.mark.parametrize("task", ["fire", "fire_failing"])
def test_serializer_of_a_call_holds_for_each_attempt(bench: Bench, task: str) -> None:
    """`apply_async(serializer="json")` in an app with another serializer."""
    key = uuid4().hex

    job = bench.publish(task, key, {"serializer": "json"}, kept=True).id

    bench.facts(key)
    assert bench.types(job) == {"application/json"}
    _await_forgotten(bench, job)


def test_serializer_of_a_task_holds_for_each_attempt(bench: Bench) -> None:
    """A task declares its own with `serializer`."""
    key = uuid4().hex

    job = bench.publish("fire_json", key, {}).id

    bench.facts(key)
    assert bench.types(job) == {"application/json"}
    _await_forgotten(bench, job)


def test_argument_arrives_as_it_was_sent_in_each_attempt(bench: Bench, serializer: str) -> None:
    """Bytes, which JSON has no form for, are kept by the ledger, too."""
    key, value = uuid4().hex, OWN_VALUES[serializer]

    bench.app.tasks["fire_failing"].delay(key, value)

    assert bench.facts(key)["value"] == repr(value)


def test_task_with_fallbacks_answers(bench: Bench) -> None:
    """Its outcome, full or degraded, can be stored and read."""
    chained, broken = bench.app.tasks["chained"], bench.app.tasks["chained_broken"]

    assert chained.delay(uuid4().hex, ANSWER).get(SECONDS) == Outcome(
        value=ANSWER, dependency="bank"
    )
    outcome = broken.delay(uuid4().hex).get(SECONDS)
    assert (outcome.value, outcome.level, outcome.reason) == (
        "static",
        Level.STATIC,
        "ConnectionError",
    )


def test_outcome_is_handed_on(bench: Bench, serializer: str) -> None:
    """Through a chain and a chord, the level reaches the next task, as with JSON.

    Celery cannot write a chain as YAML, with or without this library.
    """
    broken, chained = bench.app.tasks["chained_broken"], bench.app.tasks["chained"]
    key = uuid4().hex
    if serializer == "yaml":
        for task in (broken, bench.app.tasks["plain"]):
            with pytest.raises(EncodeError):
                chain(task.s(key), task.s()).delay()
        assert chained.delay(key, broken.delay(key).get(SECONDS)).get(SECONDS).level is Level.STATIC
        return

    line = chain(broken.s(key), chained.s()).delay().get(SECONDS)
    both = chord(group(broken.s(key), broken.s(key)), chained.s()).delay().get(SECONDS)

    assert line.level is both.level is Level.STATIC


def test_fan_out_and_its_callback_get_the_response(bench: Bench) -> None:
    """The callback gets the response as its argument, in the app's serializer."""
    tasks, key = bench.app.tasks, uuid4().hex
    fan_out = FanOut(
        good=part(tasks["resilient"].s(uuid4().hex, ANSWER)),
        poor=part(tasks["chained_broken"].s(uuid4().hex)),
        fired=part(tasks["fire"].s(uuid4().hex, ANSWER)),
    )

    response = fan_out.apply_async(budget=SECONDS, on_complete=tasks["last"].s(key)).get()

    assert response.data == {"good": ANSWER, "poor": "static", "fired": ANSWER}
    assert bench.facts(key) == {"level": int(Level.STATIC), "data": response.data}


def test_plain_task_is_as_before(bench: Bench, serializer: str) -> None:
    """Messages and results without an outcome are as Celery writes them."""
    result = bench.app.tasks["plain"].delay(uuid4().hex, [ANSWER, {"a": None}])

    assert result.get(SECONDS) == [ANSWER, {"a": None}]
    assert bench.types(result.id) == {TYPES[serializer]}


def test_argument_that_the_ledger_cannot_keep_is_refused(bench: Bench, serializer: str) -> None:
    """The error is raised where it is published, even while the broker is up: not in an outage."""
    if not UNKEEPABLE[serializer]:
        pytest.skip("the ledger keeps all that msgpack writes")

    for value in UNKEEPABLE[serializer]:
        with pytest.raises(EncodeError, match="as JSON"):
            bench.app.tasks["fire"].delay(uuid4().hex, value)


def test_serializer_that_workers_refuse_is_refused(bench: Bench, serializer: str) -> None:
    """The error says what to set."""
    other = next(name for name in TYPES if name != serializer)

    with pytest.raises(ConfigurationError, match=f"add '{other}' to accept_content"):
        bench.app.tasks["fire"].apply_async((uuid4().hex,), serializer=other)


def test_kept_job_that_workers_refuse_is_a_dead_letter(bench: Bench, serializer: str) -> None:
    """A job kept by another release neither loops for ever nor is lost."""
    other = next(name for name in TYPES if name != serializer)
    header = {"resilience-job": {"born": 0.0, "serializer": other}}

    job = bench.publish("fire", uuid4().hex, {"headers": header}, kept=True).id

    letter = wait_until(
        lambda: (found := bench.ledger.letters.show(job)) and found.state == State.DEAD and found,
        SECONDS,
        "the job is a dead letter",
    )
    assert letter.reason == "unpublishable"  # type: ignore[union-attr]
    text = f"event=JobBuried task={letter.task} id={job} "  # type: ignore[union-attr]
    wait_until(lambda: text in bench.worker.log, SECONDS, "it is announced")
