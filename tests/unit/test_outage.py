"""What is tried again and again is logged when it begins to fail and when it works again."""

import logging

import pytest

from resilience.broker.beside import Outage

logger = logging.getLogger("resilience.outage")


@pytest.fixture
def outage() -> Outage:
    """One of which nothing is known yet."""
    return Outage(logger, "nobody answers", "they answer again")


def test_outage_is_logged_once_however_often_it_is_noted(
    outage: Outage, caplog: pytest.LogCaptureFixture
) -> None:
    """Other numbers in the text of an error are no news."""
    outage.note(None)
    for seconds in (5, 6, 7):
        outage.note(TimeoutError(f"silent for {seconds} s"))
    outage.note(None)
    outage.note(None)

    assert [(one.levelname, one.message) for one in caplog.records] == [
        ("ERROR", "nobody answers: TimeoutError: silent for 5 s"),
        ("WARNING", "they answer again"),
    ]


def test_outage_of_another_kind_is_logged_as_well(
    outage: Outage, caplog: pytest.LogCaptureFixture
) -> None:
    """First it is away, then it refuses: whoever is on call needs the second."""
    outage.note(ConnectionRefusedError("away"))
    outage.note(PermissionError("no"))

    assert caplog.messages == [
        "nobody answers: ConnectionRefusedError: away",
        "nobody answers: PermissionError: no",
    ]
