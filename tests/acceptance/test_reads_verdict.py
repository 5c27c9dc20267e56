"""The demo's verdict on orders that were looked at, on recordings that are made up."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from demo.reads import reads_checks, reads_table
from demo.script import Recording
from demo.shoppers import OrderRead
from demo.traffic import Sample
from tests.acceptance.recorded import (
    PHASE_SECONDS,
    RECORDINGS,
    STARTS,
    recording,
    sample,
    steady_controls,
)

*_, STALLED, CUT, HEALED = STARTS.values()
END = HEALED + PHASE_SECONDS
REFUSED = sample("orders", sent=CUT + 1, seconds=0.05, status=503, meta={})


def read(
    sent: float,
    *,
    own: bool = True,
    page: str = "order",
    status: int = 200,
    level: int = 0,
    shown: bool = True,
) -> OrderRead:
    """Return a look at an order, in which all went well unless told otherwise."""
    return OrderRead(
        order_id="7",
        own=own,
        page=page,
        sent=sent,
        seconds=0.05,
        status=status,
        level=level,
        shown=shown,
    )


LOOKS = [
    read(STALLED + 1),
    read(STALLED + 1, page="profile"),
    read(STALLED + 1, own=False),
    read(CUT + 1),
    read(CUT + 1, page="profile", level=1, shown=False),
    read(CUT + 1, own=False, level=1),
    read(CUT + 1, own=False, status=503, level=4, shown=False),
    read(HEALED + 1),
    read(HEALED + 1, own=False),
]
WELL = [sample(sent=CUT + 2), REFUSED, sample("order", sent=CUT + 2, status=503, meta={})]


def seen(
    reads: Sequence[OrderRead],
    samples: Sequence[Sample] = WELL,
    *,
    controls: Sequence[Sample] = (),
    busy: Sequence[tuple[float, float]] = (),
) -> Recording:
    """Return a recording of the real script with these looks and requests."""
    return replace(recording(samples, controls=controls, busy=busy), reads=reads)


def verdict(found: Recording) -> list[bool | None]:
    """Return what is kept: own orders seen, stale answers marked, all else well."""
    return [check.kept for check in reads_checks(found)]


def test_shop_that_shows_own_orders_and_marks_stale_answers_is_found_to() -> None:
    """What may be stale and says so, and what is not served, was promised; the table shows it."""
    assert verdict(seen(LOOKS)) == [True] * 3
    assert reads_table(seen(LOOKS)).row_count == 3


@pytest.mark.parametrize(
    ("bad", "broken"),
    [
        pytest.param(read(CUT + 2, status=404, shown=False), 0, id="own-order-not-found"),
        pytest.param(read(CUT + 2, status=503, level=4, shown=False), 0, id="own-order-not-served"),
        pytest.param(read(STALLED + 2, status=404, shown=False), 0, id="missed-with-the-primary"),
        pytest.param(
            read(STALLED + 2, page="profile", shown=False), 0, id="list-lacks-it-and-says-nothing"
        ),
        pytest.param(read(CUT + 2, own=False), 1, id="unmarked-without-the-primary"),
        pytest.param(
            read(HEALED + 2, own=False, status=404, shown=False), 1, id="unmarked-though-it-lacks"
        ),
    ],
)
def test_broken_promise_about_orders_is_found(bad: OrderRead, broken: int) -> None:
    """One bad answer among good ones breaks the promise that it is about, and no other."""
    kept = [True] * 3
    kept[broken] = False

    assert verdict(seen([*LOOKS, bad])) == kept


def test_missed_order_is_told_of() -> None:
    """Where and when it was missed, and why: the shop that could be asked is gone by then."""
    bad = replace(read(CUT + 2, status=503, level=4, shown=False), reason="no answer from database")

    own_seen = next(iter(reads_checks(seen([*LOOKS, bad]))))

    why = "0.05 s: HTTP 503, no answer from database"
    assert f"7 missed on /order 2.0 s into 'cut', after {why}" in own_seen.text


@pytest.mark.parametrize(
    "bad",
    [
        pytest.param(sample(sent=CUT + 2, seconds=1.8), id="late"),
        pytest.param(sample(sent=STALLED + 2, status=503, meta={}), id="search-not-served"),
        pytest.param(sample("orders", sent=CUT + 2, status=500, error="HTTP 500"), id="http-500"),
        pytest.param(replace(REFUSED, seconds=1.2), id="refused-slowly"),
        pytest.param(replace(REFUSED, error="503 without a reason"), id="refused-without-a-reason"),
    ],
)
def test_what_suffers_beside_the_dead_primary_is_found(bad: Sample) -> None:
    """Other endpoints are as ever, and orders are refused at once with a reason."""
    assert verdict(seen(LOOKS, [*WELL, bad])) == [True, True, False]


def test_late_request_is_told_of() -> None:
    """Which one, how long it took and how it ended."""
    *_, beside = reads_checks(seen(LOOKS, [*WELL, sample(sent=CUT + 2, seconds=1.8)]))

    assert "/search took 1.80 s: HTTP 200" in beside.text


def test_few_late_requests_are_left_open_beside_other_programs_only() -> None:
    """The control is asked now and then: it may have missed the moment in which one was late."""
    many = [sample(sent=CUT + 2 + nth / 100) for nth in range(100)]
    late = [sample(sent=CUT + 5, seconds=1.8)]
    controls, times = steady_controls(end=END), [(STALLED, END)]

    def beside(samples: Sequence[Sample], busy: Sequence[tuple[float, float]]) -> bool | None:
        return verdict(seen(LOOKS, [*WELL, *samples], controls=controls, busy=busy))[2]

    assert beside([*many, *late], times) is None
    assert beside([*many, *late], ()) is False
    assert beside([*many, *late, *late], times) is False
    assert beside([*many, sample(sent=CUT + 5, status=500, error="HTTP 500")], times) is False
    assert beside([*many, replace(REFUSED, seconds=1.2)], times) is False


def test_script_in_which_nothing_was_seen_proves_nothing() -> None:
    """Without looks there is no promise kept; beside other programs it is left open."""
    assert verdict(seen([], [])) == [False] * 3
    assert verdict(seen([], [], busy=[(STALLED, END)])) == [None] * 3


@pytest.mark.parametrize(
    ("controls", "busy", "kept"),
    [
        pytest.param(steady_controls((CUT, HEALED), factor=20.0, end=END), True, True, id="late"),
        pytest.param(steady_controls(end=END), True, False, id="control-in-time"),
        pytest.param(
            steady_controls((CUT, HEALED), factor=20.0, end=END), False, False, id="nobody-else"
        ),
    ],
)
def test_own_order_that_the_machine_kept_from_being_served_is_not_missed(
    controls: list[Sample], *, busy: bool, kept: bool
) -> None:
    """A 503 while other programs made the control late is left out; a 404 never is."""
    times = [(STALLED, END)] if busy else []
    unserved = read(CUT + 2, status=503, level=4, shown=False)
    missing = read(CUT + 2, status=404, shown=False)

    own, *_ = reads_checks(seen([*LOOKS, unserved], controls=controls, busy=times))
    also, *_ = reads_checks(seen([*LOOKS, missing], controls=controls, busy=times))

    assert own.kept is kept
    assert also.kept is False


def test_machine_that_made_many_late_leaves_open_what_may_be_its_fault() -> None:
    """What was wrong, and an own order that was not found, are found all the same."""
    controls, times = steady_controls((CUT, HEALED), factor=20.0, end=END), [(STALLED, END)]
    unserved = read(CUT + 2, status=503, level=4, shown=False)
    in_time_elsewhere = replace(unserved, sent=STALLED + 5)
    late = sample(sent=CUT + 5, seconds=1.9)
    too_late = sample(sent=CUT + 5, seconds=2.4)

    open_ = seen(
        [*LOOKS, unserved, unserved, in_time_elsewhere],
        [*WELL, late, too_late],
        controls=controls,
        busy=times,
    )
    found = seen(
        [*LOOKS, unserved, unserved, read(CUT + 2, status=404, shown=False)],
        [*WELL, late, sample(sent=CUT + 2, status=500, error="HTTP 500")],
        controls=controls,
        busy=times,
    )

    assert verdict(open_) == [None, True, None]
    assert verdict(found) == [False, True, False]


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        pytest.param("orders-healthy-beside-load", [True, True, None], id="healthy-beside-load"),
        pytest.param("orders-forgetful", [False, True, True], id="forgetful"),
        pytest.param("orders-silent", [False, False, True], id="silent"),
    ],
)
def test_recorded_shop_is_judged_right(name: str, kept: list[bool | None]) -> None:
    """A shop that forgets who asks misses own orders, one that hides levels has stale answers.

    The healthy one was recorded while eighteen processes wanted the two processors: many of its
    answers were late, and so was the control.
    """
    assert verdict(Recording.from_json((RECORDINGS / f"{name}.json").read_bytes())) == kept
