"""Our headers are found wherever a publisher has put them."""

from typing import Any

import pytest
from celery.app.task import Context

from resilience.outcome import Hop
from resilience.tasks import envelope
from resilience.tasks.envelope import (
    BUDGET_HEADER,
    JOB_HEADER,
    Deadline,
    deadline_of,
    ledger_header,
)

BUDGET: dict[str, Any] = {"deadline": 20.0, "total": 10.0, "sent": 10.0, "hops": []}
OURS = {
    envelope.BUDGET_HEADER: BUDGET,
    envelope.SLOT_HEADER: {"fan": "f", "part": "p", "required": True},
    envelope.LANE_HEADER: "critical",
    envelope.JOB_HEADER: {"born": 1.0, "attempts": 2, "dispatches": 1},
}
THEIRS = {"sentry-trace": "1-2"}
JOB = {"id": "1", "task": "t", "retries": 0}
MESSAGES = {
    "plain": {**JOB, **OURS},
    "beside": {**JOB, **OURS, "headers": THEIRS},
    "within": {**JOB, "headers": {**OURS, **THEIRS}},
    "both": {**JOB, **OURS, "headers": {**THEIRS, **dict.fromkeys(OURS, "stale")}},
}


@pytest.mark.parametrize("kind", [dict, Context])
@pytest.mark.parametrize("name", MESSAGES)
def test_headers_mean_the_same_wherever_they_are(name: str, kind: Any) -> None:  # noqa: ANN401
    """In main process and child; those of the message itself count before nested ones."""
    headers = kind(MESSAGES[name])

    deadline, slot = envelope.deadline_of(headers), envelope.slot_of(headers)

    assert deadline is not None
    assert deadline.header() == BUDGET
    assert slot is not None
    assert (slot.fan, slot.part, slot.required) == ("f", "p", True)
    assert envelope.lane_in(headers) == "critical"
    assert envelope.ledger_header(headers)["attempts"] == 2


@pytest.mark.parametrize("name", MESSAGES)
def test_next_attempt_has_our_headers_and_theirs(name: str) -> None:
    """What Celery repeats, and what it does not find beside nested headers."""
    theirs = {} if name == "plain" else THEIRS

    assert envelope.repeated(Context(MESSAGES[name])) == {**OURS, **theirs}


def test_headers_of_a_retry_take_the_place_of_theirs_alone() -> None:
    """`self.retry(headers=…)` replaces what the publisher wrote, not what the job needs."""
    request = Context(MESSAGES["beside"])

    assert envelope.repeated(request, {"mine": 1}) == {**OURS, "mine": 1}


def test_none_in_the_message_counts_before_a_nested_budget() -> None:
    """A replay says that its letter's budget is over; a copy of it that was nested is none."""
    message = {**JOB, envelope.BUDGET_HEADER: None, "headers": {envelope.BUDGET_HEADER: BUDGET}}

    assert envelope.deadline_of(message) is None
    assert envelope.repeated(Context(message)) == {}


@pytest.mark.parametrize("odd", [None, "text", 7, [OURS], {"headers": OURS}])
def test_odd_headers_are_none(odd: object) -> None:
    """What anybody may write as "headers" costs no job."""
    for headers in ({"headers": odd}, Context({"headers": odd})):
        assert envelope.deadline_of(headers) is None
        assert envelope.ledger_header(headers) == {}
        assert envelope.lane_in(headers) == "normal"


def test_deadline_never_leaves_more_than_its_total() -> None:
    """Whatever the clock of the publisher said."""
    deadline = Deadline(at=1000.0, total=5.0, sent=995.0)

    assert deadline.left(998.0) == 2.0
    assert deadline.left(10.0) == 5.0


def test_last_hops_of_a_long_chain_travel() -> None:
    """Those before them are of less use to who asks where the time went."""
    hops = tuple(Hop(f"task {number}", 0.0, 0.0, 1.0) for number in range(20))
    header = Deadline(at=1000.0, total=5.0, sent=995.0, hops=hops).header()
    found = deadline_of({BUDGET_HEADER: header})

    assert found is not None
    assert found.hops == hops[-16:]


def test_what_the_ledger_knew_travels_whole() -> None:
    """How often its message was lost included; what is malformed is left out."""
    known = {"born": 5.0, "attempts": 2, "dispatches": 3, "lost": 1}

    assert ledger_header({JOB_HEADER: known}) == {**known, "origin": None, "serializer": None}
    assert "lost" not in ledger_header({JOB_HEADER: {**known, "lost": -1}})


def test_malformed_level_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    """What the job was given may be degraded, and nobody could tell."""
    envelope._warned.discard(envelope.LEVEL_HEADER)  # noqa: SLF001 - of this process, once
    for _ in range(2):
        assert envelope.level_of({envelope.LEVEL_HEADER: {"level": "worst"}}) is None
    [said] = caplog.messages
    assert "ignored a malformed header resilience-level=" in said
