"""What a trial concludes from its counts."""

from collections.abc import Mapping, Sequence

import pytest

from resilience.flags.document import Cost, TrialPlan
from resilience.flags.trial import judge

PLAN = TrialPlan(id="1", share=0.5, began=0.0, until=300.0, actor="ann", reason="drill")
ENOUGH = 50


def counts(control: Sequence[float], shed: Sequence[float]) -> Mapping[str, float]:
    """Return what the calls of both sides count that took these seconds."""
    return {
        f"{side}:{name}": amount
        for side, times in (("control", control), ("shed", shed))
        for name, amount in {
            "calls": len(times),
            "seconds": sum(times),
            "squares": sum(one**2 for one in times),
        }.items()
    }


def cost_of(found: Mapping[str, float]) -> Cost:
    """Return the cost that a trial which is over has measured."""
    verdict = judge("ranking", PLAN, found, 303.0, over=True)
    assert verdict is not None
    cost = verdict[1]
    assert cost is not None
    return cost


def test_cost_is_the_difference_with_its_confidence_interval() -> None:
    """Of 99 %, as a table of Student's t has it: 2.6172 at the 120.7 degrees of freedom here."""
    cost = cost_of(counts([0.9, 1.1] * ENOUGH, [0.2, 0.8] * ENOUGH))
    half = 2.6172 * ((0.01 + 0.09) / (2 * ENOUGH - 1)) ** 0.5

    assert cost.seconds == pytest.approx(0.5)
    assert (cost.high - cost.low) / 2 == pytest.approx(half, rel=1e-3)
    assert (cost.calls, cost.at) == (200, 303.0)


@pytest.mark.parametrize(
    ("failures", "stops"), [pytest.param(24, False, id="chance"), pytest.param(45, True, id="harm")]
)
def test_trial_stops_because_of_harm_and_not_by_chance(failures: int, *, stops: bool) -> None:
    """It is judged every second: a difference of 2.4 standard errors would end many a trial."""
    found = {"control:calls": 1000.0, "control:failures": 10.0}
    found |= {"shed:calls": 1000.0, "shed:failures": float(failures)}

    verdict = judge("ranking", PLAN, found, 100.0, over=False)

    assert (verdict is not None) == stops
    if verdict is not None:
        event, cost = verdict
        assert cost is None
        assert event.conclusion.startswith(f"stopped: {failures} of 1000 calls without the feature")
