"""What breakers of others get wrong, each turned into a promise of ours."""

import abc
import asyncio
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest
from celery.exceptions import Retry
from pydantic import ValidationError

from resilience import CircuitOpenError
from resilience.breaker import BreakerPolicy, State
from resilience.events import CircuitClosed, CircuitHalfOpened, CircuitOpened
from resilience.store.memory import MemoryFleet
from resilience.testing.waiting import wait_until
from tests.unit.breakers import HASTY, Rig, raise_
from tests.unit.hand_clock import HandClock

SECONDS = 120


def test_retry_of_celery_is_not_counted_as_a_failure() -> None:
    """A task that would succeed at its third attempt never ends in an open circuit."""
    rig = Rig(neutral=(Retry,))

    rig.fail(100, Retry("later"))
    rig.tell()

    assert rig.breaker.state is State.CLOSED


def test_no_lock_is_held_during_a_call() -> None:
    """Calls run at the same time: each of four ends only once all four have begun."""
    rig, together = Rig(), threading.Barrier(4)

    with ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(rig.breaker.call, together.wait, SECONDS) for _ in range(4)]

        assert sorted(call.result(SECONDS) for call in calls) == [0, 1, 2, 3]


def test_coroutine_function_is_guarded_while_it_runs() -> None:
    """A decorated coroutine function counts how its coroutine ends, not that it was made."""
    rig = Rig()

    @rig.breaker
    async def ask() -> None:
        await asyncio.sleep(0)
        raise_(ConnectionError("gone"))

    async def ask_often() -> None:
        for _ in range(4):
            with pytest.raises(ConnectionError):
                await ask()

    asyncio.run(ask_often())
    rig.tell()

    assert rig.breaker.state is State.OPEN


def test_half_open_circuit_admits_no_more_threads_than_permits() -> None:
    """Of twenty threads that call at once, as many probe as the policy says."""
    rig = Rig()
    rig.half_open()
    inside, leave = threading.Semaphore(0), threading.Event()

    def probe() -> None:
        inside.release()
        assert leave.wait(SECONDS)

    def attempt() -> bool:
        try:
            rig.breaker.call(probe)
        except CircuitOpenError:
            return False
        return True

    with ThreadPoolExecutor(20) as pool:
        calls = [pool.submit(attempt) for _ in range(20)]
        for _ in range(HASTY.half_open_probes):
            assert inside.acquire(timeout=SECONDS)
        wait_until(
            lambda: sum(call.done() for call in calls) == 20 - HASTY.half_open_probes,
            SECONDS,
            "all others are refused",
        )
        assert not inside.acquire(blocking=False)
        leave.set()

    assert sum(call.result() for call in calls) == HASTY.half_open_probes


def test_refused_calls_do_not_keep_the_permits_of_a_lost_prober() -> None:
    """A permit ends with its lease, however many calls are refused meanwhile."""
    rig = Rig()
    rig.half_open()
    with ExitStack() as lost:
        for _ in range(HASTY.half_open_probes):
            lost.enter_context(rig.breaker)

        for _ in range(int(HASTY.probe_seconds)):
            assert rig.refused()
            rig.clock.advance(1.0)

        assert not rig.refused()


def test_failures_of_all_processes_count_together() -> None:
    """Thirty-two failures of thirty-two over eight processes open a circuit that needs twenty."""
    clock = HandClock()
    fleet = MemoryFleet(clock=clock)
    rigs = [Rig(BreakerPolicy(), fleet=fleet, clock=clock) for _ in range(8)]

    for rig in rigs:
        rig.fail(4)
    clock.advance(0.3)
    for rig in rigs:
        assert rig.breaker.state
    clock.advance(0.3)

    assert [rig.refused() for rig in rigs] == [True] * 8
    assert sum(len(rig.heard(CircuitOpened)) for rig in rigs) == 1


def test_every_fifth_success_does_not_keep_a_failing_circuit_closed() -> None:
    """At 80 % failures the circuit opens, though never more than four fail in a row."""
    rig = Rig(BreakerPolicy())

    for _ in range(4):
        rig.fail(4)
        rig.succeed()
    rig.tell()

    assert rig.breaker.state is State.OPEN


def test_breakers_of_different_names_share_nothing() -> None:
    """One dependency's failures do not refuse another one's calls."""
    clock = HandClock()
    fleet = MemoryFleet(clock=clock)
    users = Rig(name="users", fleet=fleet, clock=clock)
    orders = Rig(name="orders", fleet=fleet, clock=clock)

    users.open()

    assert not orders.refused()


def test_functions_of_one_name_share_nothing_but_their_breaker() -> None:
    """What a guarded function is called has no say in whose circuit it is."""

    def fetching(rig: Rig) -> Callable[[], list[str]]:
        @rig.breaker
        def fetch() -> list[str]:
            return []

        return fetch

    users, orders = Rig(), Rig()
    fetch_users, fetch_orders = fetching(users), fetching(orders)
    users.open()

    with pytest.raises(CircuitOpenError):
        fetch_users()
    assert fetch_orders() == []


def test_late_success_does_not_close_an_open_circuit() -> None:
    """The result of a call that began before the circuit opened counts for nothing."""
    rig = Rig()

    with rig.breaker:
        rig.open()

    rig.tell()
    assert rig.refused()
    assert not rig.heard(CircuitClosed)


def test_late_failure_does_not_fail_a_probe() -> None:
    """A call that began before the circuit opened, and fails after it closed, is not counted."""
    rig, late = Rig(), ExitStack()
    for _ in range(10):
        late.enter_context(rig.breaker)
    rig.half_open()
    rig.succeed(2)

    with pytest.raises(ConnectionError), late:
        raise_(ConnectionError("gone"))

    rig.tell()
    assert len(rig.heard(CircuitClosed)) == 1
    assert rig.breaker.state is State.CLOSED


def test_block_does_not_run_while_the_circuit_is_open() -> None:
    """`with` raises before the block begins."""
    rig, ran = Rig(), []
    rig.open()

    with pytest.raises(CircuitOpenError), rig.breaker:
        ran.append(1)

    assert not ran


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), SystemExit(), GeneratorExit(), asyncio.CancelledError()]
)
def test_shutdown_and_cancellation_are_not_counted(error: BaseException) -> None:
    """Ending a process or a coroutine says nothing about the dependency."""
    rig = Rig()

    rig.fail(10, error)
    rig.tell()

    assert rig.breaker.state is State.CLOSED


def test_cancelled_probe_gives_its_permit_back() -> None:
    """A half-open circuit whose probes were all cancelled is probed again at once."""
    rig = Rig()
    rig.half_open()

    async def cancelled() -> None:
        probes = [asyncio.create_task(rig.breaker.acall(asyncio.sleep, SECONDS)) for _ in range(2)]
        await asyncio.sleep(0)
        for probe in probes:
            probe.cancel()
        ended = await asyncio.gather(*probes, return_exceptions=True)
        assert {type(end) for end in ended} == {asyncio.CancelledError}

    asyncio.run(cancelled())
    rig.succeed(2)

    assert rig.breaker.state is State.CLOSED


def test_refusals_do_not_grow_a_traceback() -> None:
    """Every refusal is an exception of its own: the thousandth is as short as the first."""
    rig = Rig()
    rig.open()
    lengths = set()

    for _ in range(1_000):
        with pytest.raises(CircuitOpenError) as caught:
            rig.breaker.call(str)
        lengths.add(len(traceback.extract_tb(caught.tb)))
        assert caught.value.__context__ is None

    assert len(lengths) == 1


def test_ignored_abstract_exception_ignores_its_own_kind_only() -> None:
    """A type made by ABCMeta is a type like any other."""

    class OddError(Exception, metaclass=abc.ABCMeta):
        """An exception with a metaclass."""

    ignoring = Rig(BreakerPolicy(minimum_calls=4, ignore=(OddError,)))
    ignoring.fail(10, OddError("odd"))
    ignoring.tell()
    assert not ignoring.heard(CircuitOpened)

    ignoring.fail(10)
    ignoring.tell()
    assert ignoring.heard(CircuitOpened)


@pytest.mark.parametrize(
    "option", ["failure_ratio", "minimum_calls", "consecutive_failures", "open_seconds"]
)
def test_zero_is_refused_and_not_replaced(option: str) -> None:
    """An option that is nonsense is an error that names it, never a silent default."""
    with pytest.raises(ValidationError, match=option):
        BreakerPolicy(**{option: 0})  # type: ignore[arg-type]  # what is tried


def test_clock_of_the_host_has_no_say() -> None:
    """An open circuit stays open for its time, though the host's clock jumps hours either way."""

    class Jumping(HandClock):
        """A clock whose wall time is anything."""

        hours = 0.0

        def now(self) -> float:
            """Return what the host says."""
            return self._seconds + 3_600 * self.hours

    clock = Jumping()
    rig = Rig(clock=clock)
    rig.open()

    for clock.hours in (-5.0, 5.0):
        assert rig.refused()
    clock.advance(1.0)
    assert not rig.refused()
    assert len(rig.heard(CircuitHalfOpened)) == 1
