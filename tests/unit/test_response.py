"""What became of one part, by what a fan-out has collected."""

from typing import Any

import pytest

from resilience import Level, Outcome
from resilience.store import Record
from resilience.tasks.response import part_answer

FAILED = b'-{"reason": "CircuitOpenError", "retry_after": 4.5}'


def record(**fields: Any) -> Record:  # noqa: ANN401 - of a record
    """Return a record of one part that has ended at its deadline."""
    known: dict[str, Any] = {
        "spec": [("a", False)],
        "ended": {},
        "stale": {},
        "final": "deadline",
        "late": 0,
        "seen": [],
        "callback": None,
        "first": True,
    }
    return Record(**known | fields)


@pytest.mark.parametrize(
    ("ended", "reason"), [({"a": FAILED}, "CircuitOpenError"), ({}, "DeadlineExceeded")]
)
@pytest.mark.parametrize("kept", [[3], Outcome(value=[3])], ids=["value", "outcome"])
def test_stale_part_says_how_old_it_is_and_why(
    ended: dict[str, bytes], reason: str, kept: object
) -> None:
    """It has the age with which it was found, not zero, and is never taken for a full answer."""
    answer = part_answer(record(ended=ended, stale={"a": (kept, 41.5)}), "a", required=False)

    assert answer.outcome == Outcome(
        value=[3], level=Level.STALE, reason=reason, source="stale", age=41.5
    )
    assert answer.reason == reason


def test_missing_part_says_why_and_when_to_come_back() -> None:
    """What the failed part knew of that reaches whoever reads the response."""
    answer = part_answer(record(ended={"a": FAILED}), "a", required=True)

    assert (answer.outcome, answer.reason, answer.retry_after) == (None, "CircuitOpenError", 4.5)
    assert answer.required


@pytest.mark.parametrize(
    ("final", "reason"), [("deadline", "DeadlineExceeded"), ("unpublished", "Unpublished")]
)
def test_part_that_never_came_has_the_reason_of_the_end(final: str, reason: str) -> None:
    """A part that the broker did not take is not one that was too slow."""
    assert part_answer(record(final=final), "a", required=False).reason == reason
