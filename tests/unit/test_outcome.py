"""An answer and how good it is, on this side of the wire and beyond."""

import json
import pickle
from dataclasses import FrozenInstanceError
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilience import Level, Outcome, PartialResponse
from resilience.outcome import Hop
from tests.unit.untimed import untimed

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
OUTCOMES = st.builds(
    Outcome,
    value=JSON,
    level=st.sampled_from(Level),
    reason=st.none() | st.text(),
    source=st.none() | st.text(),
    age=st.none() | st.floats(min_value=0, allow_infinity=False),
    dependency=st.none() | st.text(),
)


@pytest.mark.parametrize("level", Level)
def test_outcome_is_degraded_unless_it_is_full(level: Level) -> None:
    """Whatever is not the first choice's fresh answer says that it is degraded."""
    assert Outcome(value=1, level=level).degraded is (level is not Level.FULL)


def test_outcome_reads_well_from_another_language() -> None:
    """A degraded answer on the wire is its data beside all that is known about it."""
    outcome = Outcome(
        value=[1],
        level=Level.STALE,
        reason="CircuitOpenError",
        source="stale",
        age=4.5,
        dependency="users",
    )

    assert outcome.to_json() == {
        "data": [1],
        "_meta": {
            "partial": True,
            "missing": [],
            "degraded": ["users"],
            "level": 1,
            "reason": "CircuitOpenError",
            "source": "stale",
            "age": 4.5,
            "dependency": "users",
        },
    }


def test_outcome_that_is_full_names_nothing_as_degraded() -> None:
    """A full answer is not partial, and neither missing nor degraded names anything."""
    meta = Outcome(value=1, dependency="users").to_json()["_meta"]

    assert (meta["partial"], meta["missing"], meta["degraded"]) == (False, [], [])


def test_outcome_that_is_degraded_has_a_name_for_it_whoever_should_have_answered() -> None:
    """Whoever reads `degraded` finds something in it."""
    meta = Outcome(value=1, level=Level.STATIC).to_json()["_meta"]

    assert (meta["partial"], meta["degraded"], meta["dependency"]) == (True, ["answer"], None)


def test_outcome_shows_on_the_wire_where_the_time_went() -> None:
    """Job by job, if that is known."""
    outcome = Outcome(value=1, hops=(Hop(task="shop.mail", queued=0.5, waited=0.25, ran=2.0),))

    document = json.loads(json.dumps(outcome.to_json()))

    assert document["_meta"]["hops"] == [
        {"task": "shop.mail", "queued": 0.5, "waited": 0.25, "ran": 2.0}
    ]
    assert Outcome.from_json(document) == outcome
    assert "hops" not in Outcome(value=1).to_json()["_meta"]


def test_outcome_needs_no_more_on_the_wire_than_its_data_and_its_level() -> None:
    """What is not written is not known."""
    document = {"data": 1, "_meta": {"level": 2}}

    assert Outcome.from_json(document) == Outcome(value=1, level=Level.REDUCED)


@untimed
@given(OUTCOMES)
def test_outcome_survives_the_wire(outcome: Outcome[Any]) -> None:
    """Whatever JSON can carry comes back equal, with a `Level` for its level."""
    back = Outcome.from_json(json.loads(json.dumps(outcome.to_json())))

    assert back == outcome
    assert isinstance(back.level, Level)


@pytest.mark.parametrize(
    ("document", "error"),
    [
        pytest.param({}, KeyError, id="empty"),
        pytest.param({"data": 1}, KeyError, id="no-meta"),
        pytest.param({"_meta": {"level": 0}}, KeyError, id="no-data"),
        pytest.param({"data": 1, "_meta": {}}, KeyError, id="no-level"),
        pytest.param({"data": 1, "_meta": {"level": 5}}, ValueError, id="sixth-level"),
        pytest.param({"data": 1, "_meta": {"level": None}}, ValueError, id="level-null"),
    ],
)
def test_outcome_refuses_a_document_that_is_none(
    document: dict[str, Any], error: type[Exception]
) -> None:
    """What is no outcome raises instead of passing for a full answer."""
    with pytest.raises(error):
        Outcome.from_json(document)


def test_outcome_cannot_be_changed_and_can_be_pickled() -> None:
    """An answer keeps saying how good it is, also in the pool's other process."""
    outcome = Outcome(value=[1], level=Level.STATIC)

    with pytest.raises(FrozenInstanceError):
        outcome.level = Level.FULL  # type: ignore[misc]  # what must not work
    assert pickle.loads(pickle.dumps(outcome)) == outcome  # noqa: S301 - our own bytes


def test_answers_in_an_answer_are_plain_json_too() -> None:
    """Whatever is nested in whatever, the document needs no encoder of ours."""
    inner = PartialResponse(data={"user": Outcome(value=1)}, missing=["ads"])
    nested = [Outcome(value=inner), {"page": (inner,)}]

    for answer in (Outcome(value=nested), PartialResponse(data={"parts": nested})):
        assert json.loads(json.dumps(answer.to_json())) == answer.to_json()
    assert inner.to_json()["data"] == {"user": Outcome(value=1).to_json()}
