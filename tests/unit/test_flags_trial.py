"""Trials in one process: which calls are measured, and what counts as a failure."""

import asyncio
from collections.abc import Mapping
from random import Random
from threading import Thread, current_thread
from typing import Any, cast

import pytest
from celery.exceptions import Ignore, Reject, Retry

from resilience import Feature, Level, Outcome
from resilience.errors import (
    AllFallbacksFailedError,
    BulkheadFullError,
    CircuitOpenError,
    FeatureShedError,
)
from resilience.events import Event, FlagMisused
from resilience.flags import Features, Flags
from resilience.flags.document import BROWNOUT, Document, Order, Shed, TrialPlan
from resilience.flags.gate import FeatureGate
from resilience.flags.trial import ON, SHED, Draw, Trial, conclude_trial
from resilience.testing.waiting import wait_until
from tests.unit.hand_clock import HandClock

MISUSED_MAX = 100

WHO: dict[str, Any] = {"actor": "ann", "reason": "drill"}
PLAN = TrialPlan(id="1", share=0.5, began=1000.0, until=1050.0, **WHO)
SHED_ERROR = FeatureShedError("ranking", Level.REDUCED, "measures what it costs", "trial")
OFF = Shed(rule="load", measured=1.0, threshold=0.8, since=1000.0)
PROBED = Shed(rule="open:search", measured=1.0, threshold=1.0, since=1000.0)


class Store:
    """Notes what trials count."""

    key = "flags"

    def __init__(self) -> None:
        self.counts: list[Mapping[str, float]] = []
        self.senders: list[Thread] = []

    def count(self, _: str, counts: Mapping[str, float]) -> None:
        """Note *counts*."""
        self.senders.append(current_thread())
        self.counts.append(counts)

    def unreadable(self, error: object, name: str) -> None:
        """Fail: these tests keep nothing that cannot be read."""
        raise AssertionError(name, error)

    def calls(self) -> float:
        """Return how many calls were counted."""
        sides = ("control", "shed")
        return sum(one.get(f"{side}:calls", 0.0) for one in self.counts for side in sides)


class Pulse:
    """Asks nobody."""

    due = float("inf")
    scope = "fleet"

    def watch(self, _: object) -> None:
        """Ignore it."""

    def fleet_time(self, monotonic: float) -> float:
        """Return the time, which is the same everywhere."""
        return monotonic


class Process:
    """One process that has received a document."""

    def __init__(self, **agreed: Any) -> None:  # noqa: ANN401 - fields of the document
        self.store, self.clock, self.events = Store(), HandClock(), list[Event]()
        self.clock.advance(1.0)
        self.flags = Flags(
            Features([Feature("ranking", level=Level.REDUCED)], []),
            cast("Any", Pulse()),
            cast("Any", self.store),
            half_open=lambda _: True,
            listeners=[self.events.append],
            clock=self.clock,
        )
        document = Document(version=1, **{"trials": {"ranking": PLAN}, **agreed})
        self.flags.receive(document.text().encode())

    def draws(self) -> set[Draw]:
        """Return how many calls are made."""
        return {self.flags.draw("ranking") for _ in range(100)}


def order(state: str) -> dict[str, Any]:
    """Return an order about the feature, as the document keeps it."""
    return {"orders": {"ranking": Order(state=state, until=1090.0, version=1, at=1000.0, **WHO)}}  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("agreed", "draws"),
    [
        pytest.param(order("on"), {ON}, id="ordered-on"),
        pytest.param(order("off"), {SHED}, id="ordered-off"),
        pytest.param(
            {
                "orders": {
                    BROWNOUT: Order(state=Level.REDUCED, until=1090.0, version=1, at=1000.0, **WHO)
                }
            },
            {SHED},
            id="brownout",
        ),
        pytest.param({"shed": {"ranking": OFF}}, {SHED}, id="shed"),
        pytest.param({"shed": {"ranking": PROBED}}, {ON}, id="probes-a-circuit"),
    ],
)
def test_trial_leaves_alone_what_somebody_has_decided(
    agreed: dict[str, Any], draws: set[Draw]
) -> None:
    """An order, a brownout and the controller win; then no call is measured."""
    assert Process(**agreed).draws() == draws


@pytest.mark.parametrize("agreed", [{}, order("auto")])
def test_trial_measures_calls_that_nobody_has_decided_about(agreed: dict[str, Any]) -> None:
    """Half of the calls are shed, the others are the control."""
    draws = Process(**agreed).draws()
    assert all(draw.trial for draw in draws)
    assert {draw.shed for draw in draws} == {True, False}


def test_trial_begins_in_a_process_whose_clock_lags() -> None:
    """The document has the trial, so it has begun, whatever time this process thinks it is."""
    late = PLAN.model_copy(update={"began": 1001.5})
    assert all(draw.trial for draw in Process(trials={"ranking": late}).draws())


def test_gate_without_trials_sheds_no_call_for_one() -> None:
    """Calls that are only postponed take no part, but an order sheds them."""
    gate = FeatureGate("ranking", Process().flags, trials=False)
    assert {gate.draw() for _ in range(100)} == {ON}
    assert FeatureGate("ranking", Process(**order("off")).flags, trials=False).draw() is SHED


def test_end_of_a_trial_waits_for_no_store() -> None:
    """Whoever asks next must not block: another thread sends what is left."""
    process = Process()
    for _ in range(20):
        with process.flags.draw("ranking"):
            pass
    process.clock.advance(PLAN.until - PLAN.began)

    assert process.flags.enabled("ranking")
    assert process.draws() == {ON}
    wait_until(lambda: process.store.calls() == 20, 10, "all samples are sent")
    assert process.store.senders[1:]
    assert current_thread() not in process.store.senders[1:]


def measure(*, shed: bool, ends: object) -> Mapping[str, float]:
    """Return what a call counts that returns or raises *ends*."""
    store = Store()
    trial = Trial(PLAN, Level.REDUCED, cast("Any", store), cast("Random", Always(shed=shed)))
    sample = trial.draw()
    assert (sample.trial, sample.shed) == (True, shed)
    try:
        with sample:
            if isinstance(ends, BaseException):
                raise ends  # noqa: TRY301 - what the call raises
            sample.judge(ends)
    except BaseException as error:
        if error is not ends:
            raise
    trial.send()
    return store.counts[0] if store.counts else {}


class Always:
    """Dice that fall on one side."""

    def __init__(self, *, shed: bool) -> None:
        self._shed = shed

    def random(self) -> float:
        """Return a number of that side."""
        return 0.1 if self._shed else 0.9


@pytest.mark.parametrize("shed", [True, False])
@pytest.mark.parametrize(
    "error",
    [
        Retry(),
        Reject(),
        Ignore(),
        asyncio.CancelledError(),
        KeyboardInterrupt(),
        CircuitOpenError("search", 1.0),
        BulkheadFullError("search", 1.0),
        ExceptionGroup("parts", [CircuitOpenError("search", 1.0)]),
    ],
    ids=repr,
)
def test_call_that_ends_for_another_reason_counts_for_neither_side(
    error: BaseException,
    shed: bool,  # noqa: FBT001 - a parameter
) -> None:
    """The feature's absence cannot cause Celery's control flow, a cancellation or a refusal."""
    assert measure(shed=shed, ends=error) == {}


@pytest.mark.parametrize(
    ("shed", "ends", "failures"),
    [
        pytest.param(True, SHED_ERROR, 0, id="shed-without-fallbacks"),
        pytest.param(True, "value", 0, id="answered"),
        pytest.param(True, Outcome(value=1, level=Level.REDUCED, reason="x"), 0, id="promised"),
        pytest.param(True, Outcome(value=1, level=Level.STATIC, reason="x"), 1, id="worse"),
        pytest.param(True, AllFallbacksFailedError("rank", {}), 1, id="no-fallback-answers"),
        pytest.param(True, ConnectionError(), 1, id="fails-without"),
        pytest.param(False, ConnectionError(), 1, id="fails-with"),
    ],
)
def test_failure_is_less_than_a_feature_promises(
    shed: bool,  # noqa: FBT001 - a parameter
    ends: object,
    failures: int,
) -> None:
    """A shed call without fallbacks raises what was promised, which is no failure."""
    side = "shed" if shed else "control"
    counts = measure(shed=shed, ends=ends)
    assert (counts[f"{side}:calls"], counts[f"{side}:failures"]) == (1, failures)


def test_other_features_refusal_on_the_control_side_is_neutral() -> None:
    """A control call that lacks another feature says nothing about this one."""
    assert measure(shed=False, ends=SHED_ERROR) == {}


def test_end_of_a_replaced_trial_leaves_the_new_one() -> None:
    """A trial that somebody has begun meanwhile goes on."""
    new = PLAN.model_copy(update={"id": "2"})
    assert conclude_trial("ranking", PLAN, None, Document(trials={"ranking": new}), 0.0) is None
    made = conclude_trial("ranking", new, None, Document(trials={"ranking": new}), 0.0)
    assert made is not None
    assert made.trials == {}


def test_names_without_end_are_announced_a_hundred_times() -> None:
    """Names that are made of a user's input neither fill the memory nor the log."""
    process = Process()
    for number in range(3 * MISUSED_MAX):
        assert process.flags.enabled(f"user-{number}", default=True)
        assert not process.flags.enabled(f"user-{number}", default=False)
    assert [type(event) for event in process.events] == [FlagMisused] * MISUSED_MAX
