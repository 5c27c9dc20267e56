"""How degraded answers carry into what is made from them."""

import pytest

from resilience.levels import Level
from resilience.outcome import Outcome
from resilience.partial import PartialResponse
from resilience.tasks.carried import carry, note, noting, unwrapped, values_of, worse, worst

STALE = Outcome(value=1, level=Level.STALE, reason="CircuitOpenError", source="stale", age=3.0)
REDUCED = Outcome(value=2, level=Level.REDUCED, reason="OSError", source="segment")
FULL = Outcome(value=3)


def test_body_gets_the_value_of_every_outcome() -> None:
    """By position, by name and in lists, as a chord's body gets them; the rest stays as it is."""
    plain = {"of": STALE}

    assert values_of([STALE, 7, [REDUCED, [FULL], 8]], {"one": STALE, "two": "x"}) == (
        (1, 7, [2, [3], 8]),
        {"one": 1, "two": "x"},
    )
    assert values_of(None, None) == ((), {})
    assert unwrapped(plain) is plain


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        pytest.param([], None, id="nothing"),
        pytest.param([1, "a", None, {"x": STALE}], None, id="plain"),
        pytest.param([1, FULL], FULL, id="full"),
        pytest.param([STALE, REDUCED, FULL], REDUCED, id="worst-in-the-middle"),
        pytest.param([FULL, [1, [REDUCED]], STALE], REDUCED, id="in-lists"),
        pytest.param([[1, 2], []], None, id="lists-of-plain"),
    ],
)
def test_worst_of_what_was_given_counts(values: list[object], expected: object) -> None:
    """Lists are looked into, at any depth."""
    assert worst(values) is expected


def test_first_of_two_that_are_equally_degraded_counts() -> None:
    """What was given first has had its say; an outcome is worse than none."""
    again = Outcome(value=9, level=Level.STALE)

    assert worse(STALE, again) is STALE
    assert worse(STALE, REDUCED) is REDUCED
    assert worse(REDUCED, STALE) is REDUCED
    assert worse(FULL, None) is FULL


def test_answer_is_no_better_than_what_it_was_made_from() -> None:
    """It keeps why, whence and how old the worse one was; an answer that is worse stays its own."""
    made = carry(STALE, "page")
    response = PartialResponse(data={}, missing=["mail"], reasons={"mail": "OSError"})

    assert made == Outcome(
        value="page", level=Level.STALE, reason="CircuitOpenError", source="stale", age=3.0
    )
    assert carry(STALE, REDUCED) is REDUCED
    assert carry(STALE, Outcome(value=4, level=Level.STALE, reason="own")).reason == "own"
    assert carry(REDUCED, STALE).reason == "OSError"
    assert carry(STALE, response).level is Level.REDUCED


def test_body_that_was_given_a_degraded_answer_degrades() -> None:
    """What was noted while it ran carries into what it returns: the worst of it."""

    def body(text: str, number: int) -> str:
        note(STALE)
        note(REDUCED)
        note(FULL)
        return f"{text} {number}"

    assert noting(body, "page", 2) == Outcome(
        value="page 2", level=Level.REDUCED, reason="OSError", source="segment"
    )
    assert noting("{} {}".format, "page", 2) == "page 2"


def test_notes_belong_to_the_innermost_body() -> None:
    """What one body was given says nothing of the one around it, nor of what comes after it."""

    def inner() -> str:
        note(STALE)
        return "inner"

    def outer() -> list[object]:
        return [noting(inner), noting(str)]

    found = noting(outer)

    assert [one.level if isinstance(one, Outcome) else one for one in found] == [Level.STALE, ""]


def test_notes_of_a_body_that_failed_are_forgotten() -> None:
    """A note without a body, or behind one that raised, changes nothing."""

    def failing() -> None:
        note(REDUCED)
        raise ConnectionError

    def outer() -> str:
        with pytest.raises(ConnectionError):
            noting(failing)
        note(STALE)
        return "page"

    note(REDUCED)

    assert noting(str) == ""
    assert noting(outer).level is Level.STALE
