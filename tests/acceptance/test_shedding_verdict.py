"""The demo's verdict on features that were shed in the rush, on recordings that are made up."""

from collections.abc import Sequence

import pytest

from demo.shedding import shedding_checks
from demo.traffic import SHED, Sample
from tests.acceptance.recorded import CALM, RUSH, recording, sample


def without(*parts: str, sent: float, seconds: float = 0.05) -> Sample:
    """Return a search that lacks *parts* as their features are shed."""
    meta = {"level": 2 if parts else 0, "partial": True, "reasons": dict.fromkeys(parts, SHED)}
    return sample(sent=sent, seconds=seconds, meta=meta)


GOOD = [
    without(sent=RUSH + 0.5),
    without("ranking", sent=RUSH + 2),
    without("ranking", "spelling", sent=RUSH + 6),
    without("ranking", "spelling", sent=CALM + 2),
    without("ranking", sent=CALM + 4),
    without(sent=CALM + 8),
]


def verdict(
    samples: Sequence[Sample], *, busy: Sequence[tuple[float, float]] = ()
) -> list[bool | None]:
    """Return what is kept: the order, and the budget."""
    return [one.kept for one in shedding_checks(recording(samples, busy=busy))]


def test_features_that_go_and_come_back_in_order_are_what_was_promised() -> None:
    """Ranking goes first and comes back last, and all answers are in time."""
    assert verdict(GOOD) == [True, True]


@pytest.mark.parametrize(
    ("samples", "kept"),
    [
        pytest.param([without(sent=RUSH + 1)], [False, True], id="nothing-is-shed"),
        pytest.param([one for one in GOOD if one.sent < CALM + 5], [False, True], id="never-back"),
        pytest.param(
            [without("spelling", sent=RUSH + 1), *GOOD], [False, True], id="spelling-first"
        ),
        pytest.param(
            [*GOOD[:-1], without("spelling", sent=CALM + 5), GOOD[-1]],
            [False, True],
            id="ranking-back-first",
        ),
        pytest.param(
            [*GOOD, without(sent=RUSH + 1, seconds=1.8)], [True, False], id="over-the-budget"
        ),
    ],
)
def test_broken_promise_of_the_rush_is_found(samples: list[Sample], kept: list[bool]) -> None:
    """Whatever the shop does otherwise is seen; beside other programs it is left open."""
    assert verdict(samples) == kept
    whole_time = (RUSH, CALM + 10)
    assert verdict(samples, busy=[whole_time]) == [one or None for one in kept]
