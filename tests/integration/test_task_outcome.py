"""Outcomes on their way through Celery: along canvases, to the caller, and on the wire."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery, chain, chord, group

from resilience.errors import AllFallbacksFailedError
from resilience.levels import Level
from resilience.outcome import Outcome
from tests.brokers import forward
from tests.integration.apps.canvas_stage import SECONDS, running_app, sig, value_of
from tests.integration.apps.stage import new_key

DEGRADED: Outcome[Any] = Outcome(
    value=[1, 2],
    level=Level.STATIC,
    reason="ConnectionError",
    source="static",
    dependency="alpha",
)


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Celery[Any]]:
    """The client's app of a running worker."""
    with running_app(tmp_path_factory, adopted=True) as running:
        yield running


def as_dict(outcome: Outcome[Any]) -> dict[str, Any]:
    """Return value, level and reason of *outcome*."""
    return {"value": outcome.value, "level": outcome.level, "reason": outcome.reason}


def test_task_with_fallbacks_returns_an_outcome_always(app: Celery[Any]) -> None:
    """Degraded or not, and with all that is known about the answer."""
    assert value_of(sig(app, "degraded")) == DEGRADED
    assert value_of(sig(app, "undegraded", 5)) == Outcome(value=5, dependency="alpha")


def test_forked_process_shares_what_its_worker_had_loaded(app: Celery[Any]) -> None:
    """The collector would write to each object, and so make a copy of the page that holds it."""
    assert value_of(sig(app, "collected")) is False


def test_fallback_that_knows_better_sets_the_level(app: Celery[Any]) -> None:
    """An outcome from a fallback function keeps its own level."""
    assert as_dict(value_of(sig(app, "reduced"))) == {
        "value": 3,
        "level": Level.REDUCED,
        "reason": "ConnectionError",
    }


def test_chain_unwraps_outcomes_and_carries_their_level(app: Celery[Any]) -> None:
    """The next body gets the plain value; its answer is as degraded as what it was made from."""
    result = value_of(chain(sig(app, "degraded"), sig(app, "total"), sig(app, "add", 10)))

    assert as_dict(result) == {"value": 13, "level": Level.STATIC, "reason": "ConnectionError"}


def test_full_outcome_stays_full_along_a_chain(app: Celery[Any]) -> None:
    """Level 0 is carried as well: whoever gets an outcome at the start gets one at the end."""
    result = value_of(chain(sig(app, "undegraded", 5), sig(app, "add", 10)))

    assert as_dict(result) == {"value": 15, "level": Level.FULL, "reason": None}


def test_chord_body_gets_plain_values_and_the_worst_level(app: Celery[Any]) -> None:
    """Of all outcomes in the header the worst one counts."""
    header = [sig(app, "undegraded", 5), sig(app, "reduced"), sig(app, "add", 1, 1)]

    result = value_of(chord(header, sig(app, "total")))

    assert as_dict(result) == {"value": 10, "level": Level.REDUCED, "reason": "ConnectionError"}


def test_group_returns_outcomes_beside_values(app: Celery[Any]) -> None:
    """Each task's own result, as it is."""
    results = value_of(group(sig(app, "degraded"), sig(app, "add", 1, 1)))

    assert results == [DEGRADED, 2]


def test_outcome_survives_a_retry(app: Celery[Any]) -> None:
    """A task that got an outcome and tries again gets it again, plain."""
    result = value_of(chain(sig(app, "echo_degraded", new_key()), sig(app, "retry", 1)))

    assert (result.value, result.level) == ([2, 1], Level.STATIC)


def test_link_gets_the_plain_value(app: Celery[Any]) -> None:
    """A callback's body sees no outcome either."""
    linked = sig(app, "degraded")
    linked.link(total := sig(app, "total"))
    total_result = total.freeze()

    linked.apply_async()

    assert total_result.get(timeout=SECONDS).value == 3


def test_level_4_arrives_as_itself(app: Celery[Any]) -> None:
    """The caller catches the error with all that it explains."""
    with pytest.raises(AllFallbacksFailedError) as caught:
        value_of(sig(app, "exhausted"))

    error = caught.value
    assert error.dependency == "alpha"
    assert error.retry_after == 12.5
    assert list(error.reasons) == ["run", "1. cached:never stored"]
    assert error.reasons["run"].startswith("Refused")


def test_bug_is_no_outage(app: Celery[Any]) -> None:
    """A NameError arrives as itself, fallback or not."""
    with pytest.raises(NameError, match="a bug"):
        value_of(sig(app, "buggy"))


def test_any_language_can_read_an_outcome(app: Celery[Any]) -> None:
    """In the result backend it is plain JSON with data and _meta."""
    result = sig(app, "degraded").apply_async()
    result.get(timeout=SECONDS)

    client = app.backend.client  # type: ignore[attr-defined]  # that of the Redis backend
    stored = json.loads(client.get(f"celery-task-meta-{result.id}"))

    assert stored["status"] == "SUCCESS"
    assert stored["result"]["__value__"] == {
        "data": [1, 2],
        "_meta": {
            "partial": True,
            "missing": [],
            "degraded": ["alpha"],
            "level": 3,
            "reason": "ConnectionError",
            "source": "static",
            "age": None,
            "dependency": "alpha",
        },
    }


def test_any_language_can_send_an_outcome(app: Celery[Any]) -> None:
    """A message that was written by hand is understood."""
    envelope = {"__type__": "resilience.Outcome", "__value__": DEGRADED.to_json()}

    sent = app.send_task("total", args=[None], queue="nobody")
    with app.connection_for_read() as connection:
        message = app.amqp.queues["nobody"](connection.default_channel).get()
        _, kwargs, embed = json.loads(message.body)
        message.body = json.dumps([[envelope], kwargs, embed])  # as by hand
        forward(message, "alpha")
        message.ack()
    assert as_dict(sent.get(timeout=SECONDS)) == {
        "value": 3,
        "level": Level.STATIC,
        "reason": "ConnectionError",
    }
