"""Our headers are found wherever a publisher has put them."""

from typing import Any

import pytest
from celery.app.task import Context

from resilience.broker import CRASHES_HEADER
from resilience.outcome import Hop
from resilience.tasks import envelope
from resilience.tasks.envelope import (
    BUDGET_HEADER,
    JOB_HEADER,
    SLOT_HEADER,
    Deadline,
    deadline_of,
    ledger_header,
    slot_of,
)

FAN = "0371eeb0-437d-4416-a154-7f1c5f5c7ff0"
BUDGET: dict[str, Any] = {"deadline": 20.0, "total": 10.0, "sent": 10.0, "hops": []}
OURS = {
    envelope.BUDGET_HEADER: BUDGET,
    envelope.SLOT_HEADER: {"fan": FAN, "part": "p", "last": False},
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
    assert (slot.fan, slot.part, slot.last) == (FAN, "p", False)
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
    """How often its message was lost included."""
    known = {"born": 5.0, "attempts": 2, "dispatches": 3, "lost": 1}

    assert ledger_header({JOB_HEADER: known}) == {**known, "origin": None, "serializer": None}


NUMBERS = {
    "1e308": 1e308,
    "infinite": float("inf"),
    "nan": float("nan"),
    "2**63": 2**63,
    "huge": 10**5000,
    "negative": -1,
    "part": 1.5,
    "true": True,
    "text": "1",
    "none": None,
    "list": [1],
    "map": {"1": 1},
}
TIMES = NUMBERS.keys() - {"1e308", "2**63", "part"}
"""Those that are no time either."""


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("name", ["attempts", "dispatches", "lost"])
def test_ledger_header_with_an_impossible_number_counts_as_none(
    name: str, number: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Else a job that fails could run for ever; one warning says so."""
    envelope._warned.discard(JOB_HEADER)  # noqa: SLF001 - of this process, once
    known = {"born": 5.0, "attempts": 2, name: NUMBERS[number]}
    for _ in range(2):
        assert ledger_header({JOB_HEADER: known}) == {}
    [said] = caplog.messages
    assert "ignored a malformed header resilience-job=" in said
    assert len(said) < 400


@pytest.mark.parametrize("number", sorted(TIMES))
def test_header_with_an_impossible_time_counts_as_none(number: str) -> None:
    """Neither a job's birth nor the age that its part allows is taken from it."""
    assert ledger_header({JOB_HEADER: {"born": NUMBERS[number], "attempts": 2}}) == {}
    slot = {"fan": FAN, "part": "p", "stale_seconds": NUMBERS[number]}
    assert slot_of({SLOT_HEADER: slot}) is None


@pytest.mark.parametrize("count", NUMBERS)
def test_impossible_count_of_crashes_is_none(count: str) -> None:
    """A stranger's header makes no job a poisonous one, and costs no worker."""
    assert envelope.crashes_of({CRASHES_HEADER: NUMBERS[count]}) == 0


@pytest.mark.parametrize("fan", ["", "due:orders", "x", FAN + ":news", FAN.upper(), FAN + "\n", 7])
def test_slot_names_no_key_but_that_of_a_fan_out(fan: object) -> None:
    """The names of keys are made from its id."""
    assert slot_of({SLOT_HEADER: {"fan": fan, "part": "p"}}) is None


def test_malformed_level_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    """What the job was given may be degraded, and nobody could tell."""
    envelope._warned.discard(envelope.LEVEL_HEADER)  # noqa: SLF001 - of this process, once
    for _ in range(2):
        assert envelope.level_of({envelope.LEVEL_HEADER: {"level": "worst"}}) is None
    [said] = caplog.messages
    assert "ignored a malformed header resilience-level=" in said
