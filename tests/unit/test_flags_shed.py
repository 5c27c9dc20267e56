"""What the caller of a shed feature is told."""

from typing import Any

import pytest

from resilience import Feature, Level
from resilience.flags import Features, Flags
from resilience.flags.document import Document, Order, Shed
from resilience.pulse import Pulse
from tests.unit.hand_clock import HandClock

WHO: dict[str, Any] = {"actor": "ann", "reason": "drill"}
RETRY_AFTER_SECONDS_MAX = 30.0


def ordered_off(clock: HandClock, seconds: float) -> dict[str, Any]:
    """Return an order that sheds the feature for so long, as the document keeps it."""
    until = clock.now() + seconds
    order = Order(state="off", until=until, version=1, at=clock.now(), **WHO)
    return {"orders": {"ranking": order}}


def shed_by_controller(clock: HandClock, _: float) -> dict[str, Any]:
    """Return what the controller has shed, which has no end of its own."""
    shed = Shed(rule="load", measured=1.0, threshold=0.8, since=clock.now())
    return {"shed": {"ranking": shed}}


@pytest.mark.parametrize(
    ("agreed", "seconds", "told"),
    [
        pytest.param(ordered_off, 12.0, 12.0, id="ends-soon"),
        pytest.param(ordered_off, 3600.0, RETRY_AFTER_SECONDS_MAX, id="ends-in-an-hour"),
        pytest.param(shed_by_controller, 0.0, RETRY_AFTER_SECONDS_MAX, id="open-end"),
    ],
)
def test_refused_caller_comes_back_within_half_a_minute(
    agreed: Any,  # noqa: ANN401 - a function
    seconds: float,
    told: float,
) -> None:
    """An order may be lifted early, so no caller stays away for as long as it could last."""
    clock = HandClock()
    flags = Flags(
        Features([Feature("ranking", level=Level.REDUCED)], []),
        Pulse(None, clock=clock),
        None,
        listeners=(),
        clock=clock,
    )
    flags.receive(Document(version=1, **agreed(clock, seconds)).text().encode())

    error = flags.shed_error("ranking")

    assert not flags.enabled("ranking")
    assert error.retry_after == pytest.approx(told)
