"""When a process tells the fleet what it saw, and what it does alone."""

import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Any
from uuid import uuid4

import pytest

from resilience import CircuitOpenError, StoreUnavailableError
from resilience.breaker import Breaker, BreakerPolicy, State
from resilience.events import CircuitOpened, StoreFound, StoreLost
from resilience.pulse import FAILURE_SECONDS, PULSE_SECONDS, Pulse
from resilience.store import Store
from resilience.store.fleet import Exchange, Question, StoreFleet
from resilience.store.memory import MemoryFleet
from resilience.testing.plugin import running_valkey
from resilience.testing.process import import_path, inherited_env
from resilience.testing.valkey import ValkeyProcess
from resilience.testing.waiting import wait_until
from tests.unit.breakers import HASTY, Rig, raise_
from tests.unit.calling import Listening
from tests.unit.hand_clock import HandClock

SECONDS = 10
LONG = BreakerPolicy(minimum_calls=4, open_seconds=30.0, open_seconds_max=60.0)
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


# -- with a real store ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def module_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyProcess]:
    """A server that may be killed."""
    with running_valkey(tmp_path_factory) as running:
        yield running


@pytest.fixture
def server(module_server: ValkeyProcess) -> Iterator[ValkeyProcess]:
    """That server, up, and up again after the test."""
    yield module_server
    if not module_server.running:
        module_server.start()


class Process:
    """What one process has: a store, a pulse, a breaker."""

    def __init__(self, url: str, policy: BreakerPolicy = LONG, *, namespace: str = "") -> None:
        """Meet the others of *namespace*."""
        self.listening = Listening()
        self.store = Store(url, namespace=namespace or uuid4().hex, listeners=[self.listening])
        self.pulse = Pulse(StoreFleet(self.store))
        self.breaker = Breaker("users", self.pulse, policy, listeners=[self.listening])

    def fail(self, times: int = 4) -> None:
        """Let calls fail."""
        for _ in range(times):
            with suppress(ConnectionError, CircuitOpenError):
                self.breaker.call(raise_, ConnectionError("gone"))

    def refused(self) -> bool:
        """Tell whether calls are refused, the fleet willing to say so."""
        return self.breaker.refusal() is not None

    def open(self) -> None:
        """Let calls fail until the circuit is open."""
        self.fail()
        wait_until(self.refused, SECONDS, "the circuit is open")

    def kinds(self) -> list[str]:
        """Return what was heard of the store, in order."""
        heard = self.listening.heard
        return [
            type(event).__name__ for event in heard if isinstance(event, StoreLost | StoreFound)
        ]


def test_lost_store_leaves_the_process_with_what_was_agreed(server: ValkeyProcess) -> None:
    """An open circuit stays open for its time, also if it opened in the very last moment."""
    process = Process(server.url)
    process.open()
    server.kill()

    wait_until(lambda: process.refused() and process.pulse.lost, SECONDS, "the store is lost")

    refusal = process.breaker.refusal()
    assert refusal is not None
    assert refusal.retry_after is not None
    assert 20 < refusal.retry_after <= 30
    assert process.kinds() == ["StoreLost"]


def test_process_decides_alone_without_a_store(server: ValkeyProcess) -> None:
    """The same rules hold for what one process sees itself; one word when it is lost and found."""
    process = Process(server.url)
    process.breaker.call(str)
    server.kill()

    process.open()
    scopes = [e.scope for e in process.listening.heard if isinstance(e, CircuitOpened)]
    assert scopes == ["local"]
    server.start()
    wait_until(lambda: not process.refused(), SECONDS, "the fleet knows better")

    assert process.kinds() == ["StoreLost", "StoreFound"]
    assert process.pulse.scope == "fleet"


def test_process_that_never_met_the_store_works(server: ValkeyProcess) -> None:
    """A process can start while the store is down, protect itself, and join later."""
    server.kill()
    process = Process(server.url)

    process.open()
    server.start()
    wait_until(lambda: process.breaker.state is State.CLOSED, SECONDS, "it has joined")
    process.open()

    scopes = [e.scope for e in process.listening.heard if isinstance(e, CircuitOpened)]
    assert scopes == ["local", "fleet"]


def test_order_that_cannot_reach_the_fleet_is_an_error(server: ValkeyProcess) -> None:
    """Nobody believes that he forced what only his own process has heard of."""
    process = Process(server.url)
    server.kill()

    with pytest.raises(StoreUnavailableError, match="forced_open"):
        process.breaker.force_open(seconds=60, **WHO)

    assert not process.refused()


def test_order_on_an_event_loop_does_not_wait_for_its_own_pulse(server: ValkeyProcess) -> None:
    """An order given while a coroutine of this thread waits for the fleet gets through."""
    process = Process(server.url)

    async def order() -> None:
        process.breaker.call(str)
        server.client().client_pause(300)
        await asyncio.sleep(PULSE_SECONDS * 1.1)
        pulsing = asyncio.create_task(process.breaker.refusal_async())
        await asyncio.sleep(0.01)
        with suppress(StoreUnavailableError):
            process.breaker.force_open(seconds=60, **WHO)
        await pulsing

    thread = threading.Thread(target=asyncio.run, args=(order(),), daemon=True)
    thread.start()
    thread.join(SECONDS)

    assert not thread.is_alive()


FORK = """
import json, os, sys
from tests.unit.test_pulse import LONG, Process
url, namespace, kill = json.loads(sys.argv[1])
process = Process(url, namespace=namespace)
process.breaker.call(str)
if kill:
    process.open()
    os.kill(kill, 9)
child = os.fork()
if child == 0:
    if not kill:
        process.open()
    refusal = process.breaker.refusal()
    print(json.dumps(refusal and refusal.retry_after), flush=True)
    os._exit(0)
os.waitpid(child, 0)
"""


def forked(url: str, namespace: str, *, kill: int = 0) -> float:
    """Let a child open the circuit, or find it open and the store dead; return for how long."""
    done = subprocess.run(  # noqa: S603 - our own script
        [sys.executable, "-c", FORK, json.dumps([url, namespace, kill])],
        env=inherited_env({"PYTHONPATH": import_path()}),
        capture_output=True,
        check=True,
        timeout=60,
    )
    seconds: float = json.loads(done.stdout)
    return seconds


def test_breaker_used_before_a_fork_is_shared_with_the_child(server: ValkeyProcess) -> None:
    """A child counts for the same circuit as everybody, on connections of its own."""
    namespace = uuid4().hex

    forked(server.url, namespace)

    assert Process(server.url, namespace=namespace).refused()


def test_child_that_cannot_reach_the_store_keeps_time(server: ValkeyProcess) -> None:
    """An open circuit that a child inherits stays open for its time, not for decades."""
    assert 10 < forked(server.url, uuid4().hex, kill=server.pid) <= 30
