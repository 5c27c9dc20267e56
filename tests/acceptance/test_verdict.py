"""The demo's verdict on recordings that are made up, so that it is known what it must say."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from demo.isolation import isolation_checks, paces
from demo.script import PHASES, Recording, Stretch
from demo.traffic import Sample
from demo.verdict import checks

PHASE_SECONDS = 10.0
STARTS = {phase.name: PHASE_SECONDS * nth for nth, phase in enumerate(PHASES)}
WARMING, BEFORE, FAILING, HANGING, PAYMENTS, AFTER = STARTS.values()
STALE = {"level": 1, "reason": "ReadTimeout", "age": 3.0, "partial": True}
FULL: Mapping[str, Any] = {"level": 0, "partial": False}


def sample(
    endpoint: str = "search",
    *,
    sent: float = BEFORE + 1,
    seconds: float = 0.05,
    status: int = 200,
    meta: Mapping[str, Any] = FULL,
    error: str = "",
) -> Sample:
    """Return a request that went well unless told otherwise."""
    return Sample(
        endpoint=endpoint, sent=sent, seconds=seconds, status=status, meta=meta, error=error
    )


def recording(samples: Sequence[Sample], *, others: float = 0.0) -> Recording:
    """Return a recording of the real script, ten seconds a phase."""
    stretches = [
        Stretch(
            phase=phase,
            told=STARTS[phase.name],
            began=STARTS[phase.name],
            ended=STARTS[phase.name] + PHASE_SECONDS,
            others=others,
        )
        for phase in PHASES
    ]
    return Recording(stretches=stretches, samples=samples)


GOOD = [
    sample(),
    sample("recommendations"),
    sample("recommendations", sent=HANGING + 1, seconds=0.7, meta=STALE),
    sample("orders", sent=PAYMENTS + 1, seconds=2.0, status=503, meta={}),
    sample(sent=AFTER + 6),
]


def test_shop_that_kept_every_promise_is_found_to_have() -> None:
    """A level-4 answer in time and a degraded one that says so are what was promised."""
    assert [check.kept for check in checks(recording(GOOD))] == [True] * 4


@pytest.mark.parametrize(
    ("bad", "broken"),
    [
        pytest.param(sample("dashboard", seconds=1.33), 0, id="over-budget-and-tolerance"),
        pytest.param(sample(status=0, error="ReadTimeout"), 0, id="no-answer"),
        pytest.param(sample(status=500, error="HTTP 500"), 1, id="http-500"),
        pytest.param(
            sample("recommendations", sent=HANGING + 2), 2, id="full-though-the-service-hangs"
        ),
        pytest.param(
            sample("recommendations", sent=FAILING + 2, meta={**STALE, "age": None}),
            2,
            id="stale-without-age",
        ),
        pytest.param(
            sample("recommendations", sent=FAILING + 2, meta={**STALE, "reason": None}),
            2,
            id="degraded-without-reason",
        ),
        pytest.param(
            sample("recommendations", sent=FAILING + 2, status=503, meta={}), 2, id="not-served"
        ),
        pytest.param(sample(sent=AFTER + 5.1, meta=STALE), 3, id="degraded-long-after-the-repair"),
    ],
)
def test_broken_promise_is_found(bad: Sample, broken: int) -> None:
    """One bad answer among good ones breaks the promise that it is about."""
    found = [check.kept for check in checks(recording([*GOOD, bad]))]

    assert found[broken] is False


def spread(sent: float, *, factor: float = 1.0, outliers: int = 0) -> list[Sample]:
    """Return 200 requests of /search: 50 to 60 ms times *factor*, but for some of 300 ms."""
    seconds = [factor * (0.05 + 0.01 * nth / 200) for nth in range(200 - outliers)]
    seconds += [0.3] * outliers
    return [sample(sent=sent + nth / 100, seconds=one) for nth, one in enumerate(seconds)]


@pytest.mark.parametrize(
    ("during", "others", "kept"),
    [
        pytest.param(spread(HANGING, factor=1.1), 0.0, True, id="as-fast-as-before"),
        pytest.param(spread(HANGING, factor=2.0), 0.0, False, id="clearly-slower"),
        pytest.param(spread(HANGING, factor=2.0), 0.9, None, id="slower-on-a-busy-machine"),
        pytest.param(spread(HANGING, outliers=1), 0.0, True, id="one-outlier-in-two-hundred"),
        pytest.param(spread(HANGING, outliers=3), 0.0, None, id="three-may-be-chance"),
    ],
)
def test_pace_is_judged_as_surely_as_it_is_known(
    during: list[Sample], others: float, *, kept: bool | None
) -> None:
    """A p99 over the bound is a broken promise only where neither chance nor others explain it."""
    (check,) = isolation_checks(recording([*spread(BEFORE), *during], others=others))

    assert check.kept is kept


def test_pace_leaves_out_what_met_a_fault_of_its_own() -> None:
    """Orders count while recommendations hang, not while payments are slow."""
    samples = [
        sample("orders"),
        sample("orders", sent=HANGING + 1),
        sample("orders", sent=PAYMENTS - 0.1, seconds=0.5),
        sample("orders", sent=PAYMENTS + 1),
    ]

    (pace,) = paces(recording(samples))

    assert [one.sent for one in pace.during] == [HANGING + 1]
