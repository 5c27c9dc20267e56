"""When a process tells the fleet what it saw, and what it does alone."""

import asyncio
import threading
from dataclasses import replace
from typing import Any

import pytest

from resilience import pulse
from resilience.breaker import Breaker, BreakerPolicy
from resilience.events import CircuitOpened
from resilience.pulse import Pulse
from resilience.store.fleet import Exchange, Kept, Question, TakeProbe
from resilience.store.memory import MemoryFleet
from tests.unit.breakers import HASTY, Rig
from tests.unit.hand_clock import HandClock

FAILURE_SECONDS = 0.02
PULSE_SECONDS = 0.25

SECONDS = 120
WITHIN_SECONDS = 0.2
"""A call that does not wait is over by then."""
WHO: dict[str, Any] = {"actor": "ann", "reason": "maintenance"}


class Watched(MemoryFleet):
    """A fleet that keeps what it was asked, and lets the test act while it answers."""

    def __init__(self, clock: HandClock) -> None:
        """Keep nothing yet."""
        super().__init__(clock=clock)
        self.asked: list[Question] = []
        self.meanwhile: Any = None

    def ask(self, question: Question) -> Any:  # noqa: ANN401 - by question
        """Answer as always."""
        self.asked.append(question)
        answer = super().ask(question)
        if self.meanwhile is not None and isinstance(question, Exchange):
            act, self.meanwhile = self.meanwhile, None
            act()
        return answer


class Waiting(Watched):
    """A fleet that answers coroutines when the test lets it."""

    def __init__(self, clock: HandClock) -> None:
        """Answer none yet."""
        super().__init__(clock)
        self.answering = asyncio.Event()

    async def ask_async(self, question: Question) -> Any:  # noqa: ANN401 - by question
        """Answer as always, once it may."""
        await self.answering.wait()
        return self.ask(question)


@pytest.fixture
def clock() -> HandClock:
    """Time that the test moves."""
    return HandClock()


@pytest.fixture
def fleet(clock: HandClock) -> Watched:
    """Where pulses arrive."""
    return Watched(clock)


def test_busy_process_pulses_four_times_a_second(fleet: Watched, clock: HandClock) -> None:
    """A thousand calls in ten seconds cost forty exchanges, and nothing else is asked."""
    rig = Rig(fleet=fleet, clock=clock)

    for _ in range(1_000):
        rig.succeed()
        clock.advance(0.01)

    assert 36 <= len(fleet.asked) <= 41
    assert rig.pulse.sent == len(fleet.asked)


def test_idle_process_asks_before_it_admits(fleet: Watched, clock: HandClock) -> None:
    """What a process knew a second ago admits nothing: another one opened the circuit since."""
    idle, busy = (Rig(fleet=fleet, clock=clock) for _ in range(2))
    idle.succeed()
    busy.open()

    assert idle.refused()


@pytest.mark.parametrize(
    ("age_seconds", "waits"),
    [pytest.param(0.99, False, id="fresh"), pytest.param(1.01, True, id="stale")],
)
def test_call_waits_for_the_pulse_of_another_thread_once_a_second_has_passed(
    fleet: Watched,
    clock: HandClock,
    monkeypatch: pytest.MonkeyPatch,
    age_seconds: float,
    *,
    waits: bool,
) -> None:
    """What is known admits calls while a pulse is under way, unless it is over a second old."""
    monkeypatch.setattr(pulse, "WAIT_SECONDS", SECONDS)
    policy = replace(HASTY, open_seconds=8.0)
    idle, busy = (Rig(policy, fleet=fleet, clock=clock) for _ in range(2))
    answers: list[bool] = []
    other = threading.Thread(target=lambda: answers.append(idle.refused()))
    idle.succeed()
    known = clock.monotonic()
    busy.open()

    def call_meanwhile() -> None:
        other.start()
        other.join(SECONDS if not waits else WITHIN_SECONDS)

    clock.advance(known + age_seconds - clock.monotonic())
    fleet.meanwhile = call_meanwhile
    assert idle.refused()
    other.join(SECONDS)

    assert answers == [waits]


def test_plain_call_does_not_wait_for_a_coroutine_of_its_own_thread(clock: HandClock) -> None:
    """Where a coroutine that waits for the fleet cannot go on, a call asks by itself at once."""
    fleet = Waiting(clock)
    idle, busy = (Rig(replace(HASTY, open_seconds=8.0), fleet=fleet, clock=clock) for _ in range(2))

    async def call() -> bool:
        idle.succeed()
        clock.advance(1.01)
        busy.open()
        pulsing = asyncio.create_task(idle.breaker.refusal_async())
        await asyncio.sleep(0)
        refused = idle.refused()
        fleet.answering.set()
        await pulsing
        return refused

    assert asyncio.run(call())


def test_failure_is_told_at_once_and_a_burst_as_one(fleet: Watched, clock: HandClock) -> None:
    """Failures go out with the call that failed, but never more often than every 20 ms."""
    rig = Rig(BreakerPolicy(), fleet=fleet, clock=clock)
    rig.succeed()
    clock.advance(FAILURE_SECONDS)

    rig.fail(1)
    assert len(fleet.asked) == 2
    rig.fail(10)
    assert len(fleet.asked) == 2
    clock.advance(FAILURE_SECONDS * 1.01)
    rig.succeed()
    assert len(fleet.asked) == 3


def test_seldom_caller_tells_of_each_failure_at_once(fleet: Watched, clock: HandClock) -> None:
    """A failure right after the pulse that let the call through does not wait for the next call.

    Else a fleet of many processes with a call a minute each would never see a failure in time.
    """
    rigs = [Rig(BreakerPolicy(), fleet=fleet, clock=clock) for _ in range(20)]

    for rig in rigs:
        rig.fail(1)
        clock.advance(0.1)

    assert sum(len(rig.heard(CircuitOpened)) for rig in rigs) == 1


def test_seldom_callers_successes_weigh_as_much_as_their_failures(
    fleet: Watched, clock: HandClock
) -> None:
    """A fleet of processes with a call a minute each, of which a fifth fails, opens nothing."""
    rigs = [Rig(BreakerPolicy(), fleet=fleet, clock=clock) for _ in range(300)]
    for rig in rigs:
        rig.succeed()
        clock.advance(0.2)

    for _ in range(4):
        for number, rig in enumerate(rigs):
            if number % 5:
                rig.succeed()
            else:
                rig.fail(1)
            clock.advance(0.2)

    assert not any(rig.heard(CircuitOpened) for rig in rigs)


def test_failure_during_a_pulse_is_told_soon(fleet: Watched, clock: HandClock) -> None:
    """A call that fails while the pulse is under way does not wait for the next regular one."""
    rig = Rig(BreakerPolicy(), fleet=fleet, clock=clock)
    with rig.breaker:
        clock.advance(1.0)
        fleet.meanwhile = lambda: rig.fail(1)
        rig.succeed()
    clock.advance(FAILURE_SECONDS * 1.5)
    before = len(fleet.asked)

    rig.succeed()

    assert len(fleet.asked) == before + 1


def test_answer_that_is_older_than_a_change_does_not_undo_it(
    fleet: Watched, clock: HandClock
) -> None:
    """A circuit closed while a pulse was under way stays closed, whatever that pulse brings."""
    rig = Rig(fleet=fleet, clock=clock)
    rig.half_open()
    fleet.meanwhile = lambda: rig.succeed(HASTY.half_open_probes)
    clock.advance(1.0)

    rig.breaker.refusal()

    assert rig.breaker.circuit.attempt == 0
    assert not rig.refused()


def test_fifty_breakers_share_one_pulse(fleet: Watched, clock: HandClock) -> None:
    """What fifty dependencies saw goes out in one exchange."""
    pulse = Pulse(fleet, clock=clock)  # type: ignore[arg-type]  # it answers alike
    breakers = [Breaker(f"d{number}", pulse, clock=clock) for number in range(50)]
    for one in breakers:
        one.call(str)
    clock.advance(PULSE_SECONDS * 1.01)

    for one in breakers:
        one.call(str)

    sizes = [len(one.evidence) for one in fleet.asked if isinstance(one, Exchange)]
    assert sizes == [0, 50]


def test_reported_failure_is_told_at_once_to_the_circuit_as_it_is(
    fleet: Watched, clock: HandClock
) -> None:
    """A worker's parent, which makes no calls, speaks for its children as soon as they die."""
    parent, child = (Rig(fleet=fleet, clock=clock) for _ in range(2))
    child.half_open()
    child.succeed(HASTY.half_open_probes)

    for _ in range(HASTY.minimum_calls):
        parent.breaker.record_failure(ConnectionError("killed"))

    assert [event.failed for event in parent.heard(CircuitOpened)] == [4]


@pytest.mark.parametrize(
    ("policy", "opens"),
    [
        pytest.param(replace(HASTY, count=(OSError,)), True, id="count"),
        pytest.param(replace(HASTY, failure_if=lambda _: False), True, id="failure-if"),
        pytest.param(replace(HASTY, ignore=(RuntimeError,)), False, id="ignore"),
    ],
)
def test_reported_failure_is_one_whatever_else_is(policy: BreakerPolicy, *, opens: bool) -> None:
    """Whoever was killed has no answer, so options that tell failures from answers say nothing."""
    rig = Rig(policy)

    for _ in range(HASTY.minimum_calls):
        rig.breaker.record_failure(RuntimeError("killed"))

    assert rig.refused() is opens


def test_permits_are_no_more_for_a_store_that_was_back_for_a_moment(clock: HandClock) -> None:
    """A process that is left alone again goes on with what it had counted for the same circuit."""
    alone = MemoryFleet(clock=clock)
    due = Kept(generation=1, until_ms=0, body="")
    take = TakeProbe(name="users", generation=1, owner="a", most=1, seconds=10.0)
    alone.adopt({"users": due}, 0.0)
    assert alone.ask(take).granted

    alone.adopt({"users": due}, 0.0)

    assert not alone.ask(replace(take, owner="b")).granted
