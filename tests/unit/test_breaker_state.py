"""When a circuit opens, how long it stays so, and how it closes."""

import json
import random
from contextlib import ExitStack

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from resilience import CircuitOpenError
from resilience.breaker import BreakerPolicy, Circuit, State
from resilience.breaker.state import closed, opened, passed, state_at, why_open
from resilience.declared import ORDER_SECONDS_MAX
from resilience.errors import RejectedError
from resilience.events import CircuitClosed, CircuitHalfOpened, CircuitOpened
from resilience.store.fleet import Kept, Probes, Window
from resilience.store.memory import MemoryFleet
from tests.unit.breakers import HASTY, Rig, Steady, raise_, slow
from tests.unit.hand_clock import HandClock

HEARING_SECONDS = 0.5
JITTER = 0.2

SLOW = BreakerPolicy(failure_ratio=None, slow_seconds=1.0, slow_ratio=0.5, minimum_calls=4)


class BusyError(ConnectionError):
    """A dependency that says when to come back."""

    def __init__(self, retry_after: float) -> None:
        """Come back in so many seconds."""
        super().__init__(retry_after)
        self.retry_after = retry_after


def seconds_open(rig: Rig) -> float:
    """Return how long the circuit still refuses."""
    refusal = rig.breaker.refusal()
    assert refusal is not None
    assert refusal.retry_after is not None
    return refusal.retry_after


@pytest.mark.parametrize(
    ("window", "opens"),
    [
        pytest.param(Window(calls=19, failed=19, reporters=1), False, id="too-few"),
        pytest.param(Window(calls=20, failed=10, reporters=1), True, id="at-the-ratio"),
        pytest.param(Window(calls=20, failed=9, reporters=1), False, id="below-the-ratio"),
        pytest.param(Window(calls=1, failed=1, reporters=1, consecutive=9), False, id="no-row"),
    ],
)
def test_ratio_counts_from_the_minimum_of_calls(window: Window, *, opens: bool) -> None:
    """A circuit opens at its ratio, not below it, and not on fewer calls than its minimum."""
    assert bool(why_open(window, BreakerPolicy())) is opens


def test_failures_in_a_row_open_whatever_the_window_holds() -> None:
    """Three failures in a row open, however few calls there were; a success begins again."""
    rig = Rig(BreakerPolicy(failure_ratio=None, consecutive_failures=3))
    rig.fail(2)
    rig.succeed()
    rig.fail(2)
    rig.tell()
    assert rig.breaker.state is State.CLOSED

    rig.fail(1)
    rig.tell()

    assert [event.reason for event in rig.heard(CircuitOpened)] == ["3 failures in a row"]


def test_failures_long_ago_are_in_no_row() -> None:
    """A row that nobody added to for a whole window is forgotten."""
    rig = Rig(BreakerPolicy(failure_ratio=None, consecutive_failures=3))
    rig.fail(2)
    rig.tell()
    rig.clock.advance(60)

    rig.fail(1)
    rig.tell()

    assert rig.breaker.state is State.CLOSED


def test_failures_leave_the_window_with_time() -> None:
    """What is older than the window counts no more."""
    rig = Rig()
    rig.fail(3)
    rig.tell()
    rig.clock.advance(HASTY.window_seconds)

    rig.fail(3)
    rig.tell()

    assert rig.breaker.state is State.CLOSED


def test_slow_calls_open_though_none_fails() -> None:
    """A dependency that answers everything, but too late, is refused."""
    rig = Rig(SLOW)

    for _ in range(4):
        rig.breaker.call(slow(rig.clock, 1.1))
    rig.tell()

    assert [(event.slow, event.failed) for event in rig.heard(CircuitOpened)] == [(4, 0)]


def test_calls_as_slow_as_allowed_are_not_slow() -> None:
    """Only more than `slow_seconds` is too slow."""
    rig = Rig(SLOW)

    for _ in range(10):
        rig.breaker.call(slow(rig.clock, 1.0))
    rig.tell()

    assert rig.breaker.state is State.CLOSED


def test_calls_longer_than_the_window_count_when_they_end() -> None:
    """A call belongs to the moment of its end, however long ago it began."""
    policy = BreakerPolicy(
        failure_ratio=None, slow_seconds=1.0, slow_ratio=0.5, minimum_calls=2, window_seconds=60
    )
    rig = Rig(policy)

    for _ in range(2):
        rig.breaker.call(slow(rig.clock, 40))
    rig.tell()

    assert rig.breaker.state is State.OPEN


def test_long_calls_keep_the_ratio_straight() -> None:
    """Successes and failures of nine seconds weigh the same in a window of ten."""
    clock = HandClock()
    fleet = MemoryFleet(clock=clock)
    policy = BreakerPolicy(minimum_calls=4)
    rigs = [Rig(policy, fleet=fleet, clock=clock) for _ in range(10)]
    blocks = [ExitStack() for _ in rigs]
    for block, rig in zip(blocks, rigs, strict=True):
        block.enter_context(rig.breaker)
    clock.advance(9)

    for block in blocks[3:]:
        block.close()
    for rig in rigs:
        rig.tell()
    for block in blocks[:3]:
        with pytest.raises(ConnectionError), block:
            raise_(ConnectionError("gone"))
    clock.advance(2)
    rigs[0].fail()
    rigs[0].tell()

    assert rigs[0].breaker.state is State.CLOSED


def test_one_process_cannot_open_where_two_must_have_seen_failures() -> None:
    """A host with a broken resolver opens nobody's circuit."""
    clock = HandClock()
    fleet = MemoryFleet(clock=clock)
    policy = BreakerPolicy(minimum_calls=4, min_reporters=2)
    first, second = (Rig(policy, fleet=fleet, clock=clock) for _ in range(2))
    first.fail(20)
    second.succeed(5)
    first.tell()
    second.tell()
    assert first.breaker.state is State.CLOSED

    second.fail(1)
    second.tell()

    assert second.breaker.state is State.OPEN


def test_open_time_doubles_up_to_its_cap_and_begins_anew_once_closed() -> None:
    """1, 2, 4, 8, 8 … seconds while probes fail; 1 again after the circuit had closed."""
    rig = Rig()
    rig.open()
    times = [rig.heard(CircuitOpened)[-1].seconds]

    for _ in range(4):
        rig.clock.advance(times[-1])
        rig.fail(HASTY.half_open_probes)
        times.append(rig.heard(CircuitOpened)[-1].seconds)
    rig.clock.advance(8)
    rig.succeed(HASTY.half_open_probes)
    rig.clock.advance(HEARING_SECONDS)
    rig.open()

    assert times == [1, 2, 4, 8, 8]
    assert rig.heard(CircuitOpened)[-1].seconds == 1


@pytest.mark.parametrize("attempt", [0, 5, 1_023, 1_024, 10**6])
def test_open_time_is_bounded_however_long_the_outage(attempt: int) -> None:
    """An outage of hours has thousands of failed rounds, and the next opens like any other."""
    circuit = opened(Circuit(attempt=attempt), HASTY, 100.0, dice=Steady())

    assert circuit.until == 100.0 + min(2.0 ** min(attempt, 9), HASTY.open_seconds_max)


def test_open_time_is_shortened_at_random_by_a_fifth_at_most() -> None:
    """Circuits that opened together do not probe together."""
    dice = random.Random(7)  # noqa: S311 - jitter is no secret
    times = [opened(Circuit(), HASTY, 0.0, dice=dice).until for _ in range(1_000)]

    assert 1.0 - JITTER <= min(times) < 0.82
    assert 0.98 < max(times) <= 1.0


@pytest.mark.parametrize(("said", "waits"), [(0.1, 1.0), (7.0, 7.0), (10_000.0, 300.0)])
def test_retry_after_is_never_undercut(said: float, waits: float) -> None:
    """A circuit stays open as long as the dependency asked for, within reason."""
    rig = Rig()

    rig.fail(4, BusyError(said))
    rig.tell()

    assert rig.heard(CircuitOpened)[-1].seconds == pytest.approx(waits, abs=0.5)


def test_retry_after_of_a_probe_is_never_undercut() -> None:
    """A dependency that is asked again too early can say so."""
    rig = Rig()
    rig.half_open()

    rig.fail(HASTY.half_open_probes, BusyError(30.0))

    assert seconds_open(rig) == pytest.approx(30.0)


def test_retry_after_that_has_passed_is_forgotten() -> None:
    """What one answer said long ago has no say in an outage of today."""
    rig = Rig()
    rig.succeed(10)
    rig.fail(1, BusyError(100.0))
    rig.tell()
    rig.clock.advance(3_600)

    rig.open()

    assert seconds_open(rig) <= 1.0


def test_open_circuit_probes_once_its_time_is_up_and_not_before() -> None:
    """The refusal says when to come back, and that is when the first probe passes."""
    rig = Rig()
    rig.open()
    left = seconds_open(rig)

    rig.clock.advance(left - 0.001)
    assert rig.refused()
    rig.clock.advance(0.001)
    assert not rig.refused()
    assert [event.permits for event in rig.heard(CircuitHalfOpened)] == [HASTY.half_open_probes]


@pytest.mark.parametrize(
    ("ok", "failed", "verdict"),
    [(1, 0, None), (2, 0, True), (1, 1, False), (0, 2, False), (0, 1, None)],
)
def test_one_verdict_is_given_on_all_probes(ok: int, failed: int, *, verdict: bool | None) -> None:
    """Neither the first success closes nor the first failure opens."""
    assert passed(Probes(ok=ok, failed=failed), HASTY) is verdict


@pytest.mark.parametrize(
    ("manual", "text"),
    [(None, ""), (State.FORCED_OPEN, "forced_open"), (State.OBSERVED, "observed")],
)
def test_circuit_is_kept_in_a_form_that_never_changes(manual: State | None, text: str) -> None:
    """Processes of several releases share it."""
    circuit = Circuit(
        generation=7, until=1.5, attempt=2, manual=manual, manual_until=9.0, actor="a", reason="b"
    )
    kept = Kept(generation=7, until_ms=1500, body=f'[2, "{text}", 9.0, "a", "b"]')

    assert circuit.kept() == kept
    assert Circuit.of(kept) == circuit
    assert Circuit.of(Kept(generation=7, until_ms=1500, body="?")) == Circuit(generation=7)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["", *State, "x"]),
    lambda some: (
        st.lists(some, max_size=2) | st.dictionaries(st.text(max_size=2), some, max_size=2)
    ),
    max_leaves=3,
)
BODIES = st.lists(JSON, min_size=4, max_size=6).map(json.dumps).map(str.encode)
KEPT = st.tuples(st.from_regex(rb"\A([0-9]{1,18}\|){1,2}"), st.binary() | BODIES).map(b"".join)


@given(st.binary() | KEPT)
@example(b'1|1|[1, "", 1e999, "", ""]')
@example(b'1|1|[-1, "forced_open", true, "", ""]')
def test_whatever_the_store_keeps_is_a_circuit_that_can_change(text: bytes) -> None:
    """It is written back as it was found, so that it is replaced, and nothing raises an error."""
    kept = Kept.parse(text)
    back = kept.text()

    assert (back if isinstance(back, bytes) else back.encode()) == text
    circuit = Circuit.of(kept)
    for now in (0.0, 1e9, 1e12):
        assert state_at(circuit, now) in State
        # One that is further ahead than any clock is not ours, and left behind.
        foreign = circuit.generation + 1 >= (now + ORDER_SECONDS_MAX) * 1e6
        for changed in (opened(circuit, SLOW, now, dice=Steady()), closed(circuit, now)):
            assert changed.generation > circuit.generation or foreign
    assert json.dumps([circuit.until, circuit.manual_until], allow_nan=False)


@pytest.mark.parametrize(
    ("ratio", "failed", "verdict"),
    [(0.5, 1, True), (0.5, 2, False), (0.25, 1, False), (None, 1, True), (None, 2, False)],
)
def test_share_of_probes_may_fail(ratio: float | None, failed: int, *, verdict: bool) -> None:
    """Less than of other calls; less than half where failures count in a row only."""
    policy = BreakerPolicy(failure_ratio=ratio, consecutive_failures=3, half_open_probes=4)

    assert passed(Probes(ok=4 - failed, failed=failed), policy) is verdict


def test_closed_circuit_is_as_one_that_never_opened_but_later() -> None:
    """Its generation is its time in µs, or one more than before: it grows though a clock lags."""
    was = Circuit(generation=7_000_000, until=9.0, attempt=3)

    assert closed(was, 8.0) == Circuit(generation=8_000_000)
    assert closed(was, 6.0) == Circuit(generation=7_000_001)


def test_circuit_closes_once_when_its_probes_passed() -> None:
    """Two of two probes pass: one event, and calls are free again."""
    rig = Rig()
    rig.half_open()

    rig.succeed(HASTY.half_open_probes + 5)

    assert [(event.probes, event.failed) for event in rig.heard(CircuitClosed)] == [(2, 0)]


def test_slow_probe_does_not_pass() -> None:
    """A dependency that answers too late has not recovered."""
    rig = Rig(SLOW)
    for _ in range(4):
        rig.breaker.call(slow(rig.clock, 1.1))
    rig.tell()
    rig.clock.advance(SLOW.open_seconds_max)

    for _ in range(SLOW.half_open_probes):
        rig.breaker.call(slow(rig.clock, 1.1))

    assert not rig.heard(CircuitClosed)
    assert len(rig.heard(CircuitOpened)) == 2


def test_neutral_probe_gives_its_permit_back() -> None:
    """Calls that say nothing decide nothing, and keep nobody from probing."""
    rig = Rig()
    rig.half_open()

    rig.fail(20, RejectedError("users"))
    rig.succeed(HASTY.half_open_probes)

    assert len(rig.heard(CircuitClosed)) == 1


def test_call_without_a_permit_is_refused_for_a_moment() -> None:
    """A half-open circuit with all permits taken says to come back soon."""
    rig = Rig()
    rig.half_open()

    with rig.breaker, rig.breaker, pytest.raises(CircuitOpenError) as caught:
        rig.breaker.call(str)

    assert caught.value.retry_after is not None
    assert 0 < caught.value.retry_after < 0.1
