"""How old, and how good, an answer is that is made of others."""

import pytest

from resilience.levels import Level
from resilience.outcome import Outcome
from resilience.partial import PartialResponse, is_full, oldest

PAGE = PartialResponse(data={}, ages={"mail": 7.0, "news": 2.0})


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param("plain", 0.0, id="plain"),
        pytest.param(Outcome(value=1), 0.0, id="fresh"),
        pytest.param(Outcome(value=1, age=3.0), 3.0, id="aged"),
        pytest.param(PartialResponse(data={}), 0.0, id="response-without-ages"),
        pytest.param(PAGE, 7.0, id="oldest-part"),
        pytest.param(Outcome(value=PAGE, age=3.0), 7.0, id="part-older-than-the-outcome"),
        pytest.param(Outcome(value=PAGE, age=8.0), 8.0, id="outcome-older-than-the-parts"),
        pytest.param(Outcome(value=Outcome(value=1, age=4.0)), 4.0, id="outcome-in-an-outcome"),
    ],
)
def test_answer_is_as_old_as_the_oldest_part_of_it(value: object, expected: float) -> None:
    """Whatever it is wrapped in."""
    assert oldest(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param(None, True, id="nothing"),
        pytest.param(Outcome(value=1), True, id="full"),
        pytest.param(Outcome(value=1, level=Level.STALE), False, id="degraded"),
        pytest.param(Outcome(value=1, age=1.0), False, id="aged"),
        pytest.param(PartialResponse(data={}), True, id="whole-response"),
        pytest.param(PartialResponse(data={}, missing=["mail"]), False, id="missing-part"),
        pytest.param(PartialResponse(data={}, degraded=["mail"]), False, id="degraded-part"),
        pytest.param(PartialResponse(data={}, level=Level.FAILED), False, id="failed-response"),
        pytest.param(Outcome(value=PartialResponse(data={}, missing=["mail"])), False, id="in-one"),
        pytest.param(Outcome(value=Outcome(value=1, age=1.0)), False, id="aged-in-one"),
    ],
)
def test_answer_is_remembered_only_if_nothing_in_it_is_degraded(
    value: object, *, expected: bool
) -> None:
    """Else it would be given for a full one later."""
    assert is_full(value) is expected
