"""The header that says what a job's reads must see."""

import logging
from typing import Any

import pytest
from celery.app.task import Context

from resilience.consistency import ConsistentSession, Position, Token
from resilience.tasks import envelope

NEVER: Any = None
"""A clock that is not read."""
TOKEN = Token(session="7", positions={"db": Position.at("1/1", 5, known=3.0)}, unknown={"x": 2.0})


@pytest.fixture(autouse=True)
def _unwarned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(envelope, "_warned", set())


@pytest.mark.parametrize("kind", [dict, Context])
@pytest.mark.parametrize("nested", [False, True])
def test_token_is_read_wherever_it_is(kind: Any, *, nested: bool) -> None:  # noqa: ANN401
    """In main process and child, in the message or nested in it."""
    header = {envelope.POSITION_HEADER: TOKEN.to_json()}
    headers = kind({"headers": header} if nested else header)

    assert envelope.position_of(headers, NEVER) == TOKEN


def test_no_header_is_no_token() -> None:
    """Nor is one of another app an error."""
    assert envelope.position_of({"id": "1"}, NEVER) is None
    assert envelope.position_of(None, NEVER) is None


@pytest.mark.parametrize(
    "value",
    [
        "0/16B3748",
        [],
        {"positions": {"db": {"1/1": ["DROP TABLE", 1]}}},
    ],
)
def test_malformed_header_lets_the_primary_answer(
    value: object, caplog: pytest.LogCaptureFixture
) -> None:
    """What it stood for is lost by now, in fleet time; there is one warning."""
    headers = {envelope.POSITION_HEADER: value}
    with caplog.at_level(logging.WARNING, logger="resilience"):
        token = envelope.position_of(headers, lambda: 5.0)
        assert envelope.position_of(headers, lambda: 6.0) is not None

    assert token is not None
    assert ConsistentSession(token=token).is_unknown("any database")
    assert ConsistentSession(token=token).unknown_at("any database") == 5.0
    assert len(caplog.records) == 1


def test_malformed_budget_does_not_take_the_warning_away(caplog: pytest.LogCaptureFixture) -> None:
    """Each header has its own."""
    with caplog.at_level(logging.WARNING, logger="resilience"):
        envelope.deadline_of({envelope.BUDGET_HEADER: 1})
        envelope.position_of({envelope.POSITION_HEADER: 1}, lambda: 5.0)

    assert len(caplog.records) == 2


def test_next_attempt_keeps_it() -> None:
    """A retry, a row of the outbox and a replay see what the first attempt was to see."""
    request = Context({"id": "1", envelope.POSITION_HEADER: TOKEN.to_json()})

    assert envelope.repeated(request) == {envelope.POSITION_HEADER: TOKEN.to_json()}
