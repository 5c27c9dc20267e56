"""What the parts of a fan-out amount to."""

import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilience import Level, Outcome, PartAnswer, PartialResponse
from resilience.partial import assemble, outcome_of
from tests.unit.untimed import untimed

NAMES = st.sampled_from(["a", "b", "c", "d", "e", "ab", "bc", "abc"])
PRESENT = [level for level in Level if level is not Level.FAILED]
SECONDS = st.none() | st.floats(min_value=0, max_value=1e6)
OUTCOMES = st.builds(
    Outcome,
    value=st.integers(),
    level=st.sampled_from(Level),
    reason=st.none() | st.just("OSError"),
    source=st.none() | st.just("stale"),
    age=SECONDS,
)


@st.composite
def part_answers(draw: st.DrawFn, values: st.SearchStrategy[Outcome[Any]]) -> list[PartAnswer]:
    """Draw an answer for each of some parts, a few of them nested under a common name."""
    names = draw(st.lists(NAMES, unique=True, max_size=5))
    nested = draw(st.lists(NAMES, unique=True, max_size=3))
    # A name is either a part or the home of nested ones, as in a declaration.
    home = draw(NAMES.filter(lambda name: name not in names))
    return [
        PartAnswer(
            name=name,
            outcome=draw(st.none() | values),
            reason=draw(st.none() | st.just("DeadlineExceeded")),
            retry_after=draw(SECONDS),
            required=draw(st.booleans()),
        )
        for name in [*names, *(f"{home}.{name}" for name in nested)]
    ]


FLAT = part_answers(OUTCOMES)
NESTED = part_answers(OUTCOMES | st.builds(Outcome, value=FLAT.map(assemble)))
RESPONSES = NESTED.map(assemble)


def value_at(data: Mapping[str, Any], name: str) -> object:
    """Return what stands in *data* under the dotted *name*.

    Raises:
        KeyError: Nothing does.
    """
    found: Any = data
    for step in name.split("."):
        found = found[step]
    return found


def is_missing(answer: PartAnswer) -> bool:
    """Tell whether a part has no answer."""
    return answer.outcome is None or answer.outcome.level is Level.FAILED


@untimed
@given(FLAT)
def test_response_accounts_for_every_part(answers: list[PartAnswer]) -> None:
    """Each part is either in the data or missing, never both, and no other is."""
    response = assemble(answers)

    assert set(response.missing) == {answer.name for answer in answers if is_missing(answer)}
    assert len(response.missing) == len(set(response.missing))
    for answer in answers:
        if answer.name in response.missing:
            with pytest.raises(KeyError):
                value_at(response.data, answer.name)
        else:
            assert answer.outcome is not None
            assert value_at(response.data, answer.name) == answer.outcome.value


@untimed
@given(FLAT)
def test_response_level_is_the_worst_present_or_failed(answers: list[PartAnswer]) -> None:
    """4 only if a required part is missing; at least 2 if any is; else the worst that came."""
    response = assemble(answers)
    present = [answer.outcome.level for answer in answers if answer.outcome is not None]
    present = [level for level in present if level is not Level.FAILED]

    if any(answer.required and is_missing(answer) for answer in answers):
        assert response.level is Level.FAILED
    else:
        least = Level.REDUCED if response.missing else Level.FULL
        assert response.level is max([least, *present])


@untimed
@given(RESPONSES)
def test_response_gives_a_reason_for_each_part_that_is_not_full(response: PartialResponse) -> None:
    """Nothing is missing or degraded without a reason, and nothing else has one."""
    assert set(response.reasons) == {*response.missing, *response.degraded}
    assert all(response.reasons.values())
    assert response.partial is bool(response.missing or response.degraded)


@untimed
@given(FLAT)
def test_response_lists_what_is_degraded_with_its_age_and_source(answers: list[PartAnswer]) -> None:
    """A part that came but is not full is named, and what is known of its answer kept."""
    response = assemble(answers)
    came = {a.name: a.outcome for a in answers if a.outcome is not None and not is_missing(a)}

    assert set(response.degraded) == {name for name, outcome in came.items() if outcome.degraded}
    assert response.ages == {n: o.age for n, o in came.items() if o.age is not None}
    assert response.sources == {n: o.source for n, o in came.items() if o.source is not None}


@untimed
@given(NESTED)
def test_response_says_to_come_back_when_the_last_part_said(answers: list[PartAnswer]) -> None:
    """A retry makes sense once every part that named a time, at any depth, is ready."""
    said = [answer.retry_after for answer in answers]
    for answer in answers:
        if not is_missing(answer) and answer.outcome is not None:
            inner = answer.outcome.value
            said.append(inner.retry_after if isinstance(inner, PartialResponse) else None)

    assert assemble(answers).retry_after == max(
        (seconds for seconds in said if seconds is not None), default=None
    )


@untimed
@given(RESPONSES)
def test_response_survives_the_wire(response: PartialResponse) -> None:
    """What another process reads from JSON is the same response."""
    back = PartialResponse.from_json(json.loads(json.dumps(response.to_json())))

    assert back == response
    assert isinstance(back.level, Level)


@untimed
@given(FLAT, st.booleans())
def test_nested_response_brings_its_parts_along(inner: list[PartAnswer], required: bool) -> None:  # noqa: FBT001 - drawn
    """A part that is a response itself is nested in the data, its parts under dotted names."""
    made = assemble(inner)
    answer = PartAnswer(name="page", outcome=Outcome(value=made), required=required)

    response = assemble([answer])

    assert response.data == {"page": made.data}
    assert response.missing == [f"page.{name}" for name in made.missing]
    assert response.degraded == [f"page.{name}" for name in made.degraded]
    assert response.reasons == {f"page.{name}": why for name, why in made.reasons.items()}
    assert response.ages == {f"page.{name}": age for name, age in made.ages.items()}
    assert response.sources == {f"page.{name}": step for name, step in made.sources.items()}


@pytest.mark.parametrize(
    ("required", "level"),
    [pytest.param(True, Level.FAILED, id="required"), pytest.param(False, Level.REDUCED, id="not")],
)
def test_nested_response_that_failed_fails_only_who_requires_it(
    required: bool,  # noqa: FBT001 - a parameter
    level: Level,
) -> None:
    """An optional page that lacks its required part does not take the dashboard down."""
    page = assemble([PartAnswer(name="user", outcome=None, required=True)])
    assert page.level is Level.FAILED

    response = assemble([PartAnswer(name="page", outcome=Outcome(value=page), required=required)])

    assert response.level is level
    assert response.missing == ["page.user"]


def test_reason_of_the_part_goes_before_the_outcomes() -> None:
    """A part that was late and answered from a stale value says that it was late."""
    outcome = Outcome(value=1, level=Level.STALE, reason="OSError", source="stale")
    late = PartAnswer(name="a", outcome=outcome, reason="DeadlineExceeded")

    assert assemble([late]).reasons == {"a": "DeadlineExceeded"}
    assert assemble([PartAnswer(name="a", outcome=outcome)]).reasons == {"a": "OSError"}


def test_part_of_which_nobody_says_why_it_lacks_has_a_reason_all_the_same() -> None:
    """Whoever looks for it under the part's name finds some words."""
    degraded = Outcome(value=1, level=Level.STALE)
    answers = [PartAnswer(name="a", outcome=None), PartAnswer(name="b", outcome=degraded)]

    assert assemble(answers).reasons == {"a": "no reason given", "b": "degraded"}


def test_outcome_of_a_response_says_of_each_part_why_it_lacks() -> None:
    """Its reason is read by people: the parts in the order of the response."""
    why = {"mail": "OSError", "ads": "DeadlineExceeded"}
    response = PartialResponse(data={}, missing=["mail", "ads"], reasons=why)

    assert outcome_of(response, dependency="page") == Outcome(
        value=response,
        level=Level.REDUCED,
        reason="mail: OSError; ads: DeadlineExceeded",
        dependency="page",
    )


def test_response_reads_well_from_another_language() -> None:
    """On the wire there is the data, and beside it all that is not as it should be."""
    stale = Outcome(value=[3], level=Level.STALE, reason="OSError", source="stale", age=41.5)
    response = assemble(
        [
            PartAnswer(name="user", outcome=Outcome(value={"id": 7}), required=True),
            PartAnswer(name="shop.metrics", outcome=stale),
            PartAnswer(name="shop.alerts", outcome=None, reason="CircuitOpenError", retry_after=5),
        ]
    )

    assert response.to_json() == {
        "data": {"user": {"id": 7}, "shop": {"metrics": [3]}},
        "_meta": {
            "partial": True,
            "missing": ["shop.alerts"],
            "degraded": ["shop.metrics"],
            "level": 2,
            "reasons": {"shop.metrics": "OSError", "shop.alerts": "CircuitOpenError"},
            "ages": {"shop.metrics": 41.5},
            "sources": {"shop.metrics": "stale"},
            "retry_after": 5,
        },
    }


def test_response_of_nothing_is_full_and_empty() -> None:
    """No parts, nothing missing."""
    assert assemble([]) == PartialResponse(data={})
    assert not assemble([]).partial


def test_response_refuses_a_document_that_is_none() -> None:
    """What is no response raises instead of passing for a full one."""
    document = PartialResponse(data={}).to_json()
    document["_meta"]["level"] = 9

    with pytest.raises(ValueError, match="9 is not a valid Level"):
        PartialResponse.from_json(document)
    with pytest.raises(KeyError):
        PartialResponse.from_json({"data": {}})


@pytest.mark.parametrize(
    ("fields", "level"),
    [
        pytest.param({"missing": ["a"]}, Level.REDUCED, id="missing"),
        pytest.param({"missing": ["a"], "level": Level.STALE}, Level.REDUCED, id="missing-stale"),
        pytest.param({"missing": ["a"], "level": Level.FAILED}, Level.FAILED, id="failed"),
        pytest.param({"degraded": ["a"]}, Level.STALE, id="degraded"),
        pytest.param({"degraded": ["a"], "level": Level.STATIC}, Level.STATIC, id="static"),
    ],
)
def test_response_never_has_a_better_level_than_its_parts(
    fields: dict[str, Any], level: Level
) -> None:
    """However it is made, by hand or read from a wire, an alert on its level sees what lacks."""
    made = PartialResponse(data={}, **fields)
    document = made.to_json()
    document["_meta"]["level"] = int(fields.get("level", 0))

    assert made.level is level
    assert PartialResponse.from_json(document) == made
