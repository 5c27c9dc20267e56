"""The demo's verdict on recordings that are made up, so that it is known what it must say."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from demo.isolation import beside_the_outage, isolation_checks
from demo.script import Recording
from demo.traffic import Sample
from demo.verdict import checks
from tests.acceptance.recorded import (
    AFTER,
    BEFORE,
    FAILING,
    HANGING,
    MAILS,
    PAYMENTS,
    PHASE_SECONDS,
    RECORDINGS,
    recording,
    sample,
    steady_controls,
)

STALE = {"level": 1, "reason": "ReadTimeout", "age": 3.0, "partial": True}


GOOD = [
    sample(),
    sample("recommendations"),
    sample("recommendations", sent=HANGING + 1, seconds=0.7, meta=STALE),
    sample("orders", mail=MAILS[0]),
    sample("orders", sent=PAYMENTS + 1, seconds=2.0, status=503, meta={}),
    sample(sent=AFTER + 6),
]


def test_shop_that_kept_every_promise_is_found_to_have() -> None:
    """A level-4 answer in time and a degraded one that says so are what was promised."""
    assert [check.kept for check in checks(recording(GOOD))] == [True] * 5


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
        pytest.param(sample("orders", mail="<3@shop.example>"), 3, id="mail-never-sent"),
        pytest.param(sample(sent=AFTER + 5.1, meta=STALE), 4, id="degraded-long-after-the-repair"),
    ],
)
def test_broken_promise_is_found(bad: Sample, broken: int) -> None:
    """One bad answer among good ones breaks the promise that it is about."""
    found = [check.kept for check in checks(recording([*GOOD, bad]))]

    assert found[broken] is False


def spread(
    sent: float, *, factor: float = 1.0, outliers: int = 0, endpoint: str = "search"
) -> list[Sample]:
    """Return 200 requests: 50 to 60 ms times *factor*, but for some of 300 ms."""
    seconds = [factor * (0.05 + 0.01 * nth / 200) for nth in range(200 - outliers)]
    seconds += [0.3] * outliers
    return [sample(endpoint, sent=sent + nth / 25, seconds=one) for nth, one in enumerate(seconds)]


@pytest.mark.parametrize(
    ("during", "kept"),
    [
        pytest.param(spread(HANGING, factor=1.1), True, id="as-fast-as-before"),
        pytest.param(spread(HANGING, factor=2.0), False, id="clearly-slower"),
        pytest.param(spread(HANGING, outliers=1), True, id="one-outlier-in-two-hundred"),
        pytest.param(spread(HANGING, outliers=3), None, id="three-may-be-chance"),
    ],
)
def test_pace_is_judged_as_surely_as_it_is_known(
    during: list[Sample], *, kept: bool | None
) -> None:
    """A p99 over the bound is a broken promise only where chance does not explain it."""
    (check,) = isolation_checks(recording([*spread(BEFORE), *during]))

    assert check.kept is kept


def test_pace_leaves_out_what_met_a_fault_of_its_own() -> None:
    """Orders count while recommendations hang, not while payments are slow."""
    samples = [
        sample("orders"),
        sample("orders", sent=HANGING + 1),
        sample("orders", sent=PAYMENTS - 0.1, seconds=0.5),
        sample("orders", sent=PAYMENTS + 1),
    ]

    during = beside_the_outage(recording(samples), "orders")

    assert [one.sent for one in during] == [HANGING + 1]


WHOLE_TIME = (0.0, AFTER + PHASE_SECONDS)
HANG_TIME = (HANGING, HANGING + PHASE_SECONDS)


@pytest.mark.parametrize(
    ("during", "controls", "busy", "kept"),
    [
        pytest.param(
            spread(HANGING, factor=3.0),
            steady_controls(HANG_TIME),
            HANG_TIME,
            True,
            id="a-burst-made-both-late",
        ),
        pytest.param(
            spread(HANGING, factor=4.5),
            steady_controls(HANG_TIME),
            HANG_TIME,
            None,
            id="a-burst-explains-most-of-it",
        ),
        pytest.param(
            spread(HANGING, factor=12.0),
            steady_controls(HANG_TIME),
            HANG_TIME,
            False,
            id="no-burst-explains-it",
        ),
        pytest.param(
            spread(HANGING, outliers=8),
            steady_controls(),
            WHOLE_TIME,
            False,
            id="a-worker-was-full-beside-steady-load",
        ),
        pytest.param(
            spread(HANGING, factor=3.0),
            steady_controls(HANG_TIME),
            (0.0, 0.0),
            False,
            id="the-shop-itself-made-both-late",
        ),
    ],
)
def test_pace_beside_other_programs_is_judged_against_the_control(
    during: list[Sample],
    controls: list[Sample],
    busy: tuple[float, float],
    *,
    kept: bool | None,
) -> None:
    """What made the control as late is no broken promise; what did not, is one, load or not."""
    (check,) = isolation_checks(
        recording([*spread(BEFORE), *during], controls=controls, busy=[busy])
    )

    assert check.kept is kept, check.text
    assert ("not judged: other programs used" in check.text) is (kept is None)


@pytest.mark.parametrize(
    ("seconds", "controls", "busy", "kept"),
    [
        pytest.param(1.4, steady_controls(HANG_TIME, factor=20.0), HANG_TIME, True, id="all-late"),
        pytest.param(2.4, steady_controls(HANG_TIME, factor=20.0), HANG_TIME, False, id="later"),
        pytest.param(1.4, steady_controls(), HANG_TIME, False, id="control-in-time"),
        pytest.param(
            1.4, steady_controls(HANG_TIME, factor=20.0), (0.0, 0.0), False, id="nobody-else"
        ),
    ],
)
def test_budget_is_overrun_by_no_more_than_the_machine_was_late(
    seconds: float, controls: list[Sample], busy: tuple[float, float], *, kept: bool
) -> None:
    """Late by what other programs made the control late is in time; anything more is not."""
    late = sample("dashboard", sent=HANGING + 5, seconds=seconds)

    in_time, *_ = checks(recording([*GOOD, *GOOD, late], controls=controls, busy=[busy]))

    assert in_time.kept is kept
    assert ("no later than the control" in in_time.text) is kept


@pytest.mark.parametrize(
    ("explained", "kept"), [pytest.param(11, None, id="one-in-twelve"), (2, False), (0, False)]
)
def test_pause_that_the_control_missed_is_no_finding(explained: int, *, kept: bool | None) -> None:
    """One late request that nothing explains, beside many that the machine made late."""
    controls = steady_controls(HANG_TIME, factor=20.0)
    late = [sample("dashboard", sent=HANGING + 5, seconds=1.4)] * explained
    bad = sample("dashboard", sent=HANGING + 5, seconds=2.4)
    samples = [*GOOD * 40, *late, bad]

    in_time, *_ = checks(recording(samples, controls=controls, busy=[HANG_TIME]))

    assert in_time.kept is kept


def test_request_that_was_sent_late_is_not_blamed_on_the_shop() -> None:
    """How late a timer of the demo's own fires is no time that the shop had."""
    late = sample("dashboard", sent=HANGING + 5, seconds=2.0)
    held = replace(late, held=1.0)

    found = [
        next(
            checks(recording([*GOOD, *GOOD, one], controls=steady_controls(), busy=[HANG_TIME]))
        ).kept
        for one in (late, held)
    ]

    assert found == [False, True]


def test_machine_that_made_all_late_leaves_budgets_and_pace_open() -> None:
    """Where nearly every request was as late as the control, nothing can be said of the shop."""
    slow = [sample(sent=at, seconds=2.0) for at in (BEFORE + 5, HANGING + 5) for _ in range(50)]
    controls = steady_controls((BEFORE + 4, BEFORE + 7), (HANGING + 4, HANGING + 7), factor=100.0)
    seen = recording(slow, controls=controls, busy=[WHOLE_TIME])

    in_time, *_ = checks(seen)
    (pace,) = isolation_checks(seen)

    assert (in_time.kept, pace.kept) == (None, None)
    assert all("not judged: other programs used 1.0" in one.text for one in (in_time, pace))
    assert "nan" not in pace.text


@pytest.mark.parametrize(
    ("slow", "kept"),
    [
        pytest.param((AFTER + 7.0, AFTER + 9.0), True, id="while-the-control-was-late"),
        pytest.param((0.0, 0.0), False, id="while-it-was-not"),
        pytest.param((AFTER, AFTER + PHASE_SECONDS), None, id="while-it-was-all-the-time"),
    ],
)
def test_recovery_is_judged_where_the_machine_lets_it(
    slow: tuple[float, float], *, kept: bool | None
) -> None:
    """A degraded answer long after the repair breaks the promise, unless all was late just then."""
    lapse = sample(sent=AFTER + 8, meta=STALE)
    controls = steady_controls(slow, factor=20.0)

    *_, recovered = checks(recording([*GOOD, lapse], controls=controls, busy=[WHOLE_TIME]))

    assert recovered.kept is kept


@pytest.mark.parametrize(("busy", "kept"), [((), False), ([WHOLE_TIME], None)])
def test_recovery_that_is_a_little_late_counts_where_nothing_else_ran(
    busy: Sequence[tuple[float, float]], *, kept: bool | None
) -> None:
    """Beside other programs, half a second too much may be theirs."""
    lapse = sample(sent=AFTER + 5.5, meta=STALE)

    *_, recovered = checks(recording([*GOOD, lapse], controls=steady_controls(), busy=busy))

    assert recovered.kept is kept


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        pytest.param("healthy-beside-load", {True, None}, id="healthy"),
        pytest.param("one-worker-beside-load", {False, None}, id="one-worker"),
    ],
)
def test_recorded_shop_beside_load_is_judged_right(name: str, expected: set[bool | None]) -> None:
    """A shop whose bulkheads share a worker fails where all processors are in use; ours does not.

    Both were recorded at a quarter of the rates, while others used 1.6 to 1.8 of 2 processors.
    """
    seen = Recording.from_json((RECORDINGS / f"{name}.json").read_bytes())

    verdict = {check.kept for check in isolation_checks(seen)}

    assert verdict <= expected
    assert (False in verdict) is (False in expected)
