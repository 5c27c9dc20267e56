"""What a process does when it loses or finds its store, or shares it with forked children."""

import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest

from resilience import StoreUnavailableError
from resilience.breaker import State
from resilience.events import CircuitOpened
from resilience.testing.plugin import running_valkey
from resilience.testing.process import import_path, inherited_env
from resilience.testing.valkey import ValkeyProcess
from resilience.testing.waiting import wait_until
from tests.unit import breaker_forker
from tests.unit.processes import LONG, Process

SECONDS = 120
PULSE_SECONDS = 0.25
WHO: dict[str, Any] = {"actor": "ann", "reason": "maintenance"}


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


def test_lost_store_leaves_the_process_with_what_was_agreed(server: ValkeyProcess) -> None:
    """An open circuit stays open for its time, even if it opened just before the store was lost."""
    process = Process(server.url)
    process.open()
    server.kill()

    wait_until(
        lambda: process.refused() and process.pulse.scope == "local", SECONDS, "the store is lost"
    )

    refusal = process.breaker.refusal()
    assert refusal is not None
    assert refusal.retry_after is not None
    assert 20 < refusal.retry_after <= 30
    assert process.kinds() == ["StoreLost"]


def test_process_decides_alone_without_a_store(server: ValkeyProcess) -> None:
    """It applies the same rules to what it sees; loss and return are announced once each."""
    process = Process(server.url)
    process.breaker.call(str)
    server.kill()

    process.open()
    scopes = [e.scope for e in process.listening.heard if isinstance(e, CircuitOpened)]
    assert scopes == ["local"]
    server.start()
    wait_until(lambda: not process.refused(), SECONDS, "the circuit of the fleet is closed")

    assert process.kinds() == ["StoreLost", "StoreFound"]
    assert process.pulse.scope == "fleet"


def test_process_that_never_met_the_store_works(server: ValkeyProcess) -> None:
    """A process can start while the store is down, protect itself, and join later."""
    server.kill()
    process = Process(server.url)

    process.open()
    server.start()
    wait_until(lambda: process.breaker.state is State.CLOSED, SECONDS, "it has joined the fleet")
    process.open()

    scopes = [e.scope for e in process.listening.heard if isinstance(e, CircuitOpened)]
    assert scopes == ["local", "fleet"]


def test_order_that_cannot_reach_the_fleet_is_an_error(server: ValkeyProcess) -> None:
    """No operator believes an order in force that only their own process knows of."""
    process = Process(server.url)
    server.kill()

    with pytest.raises(StoreUnavailableError, match="forced_open"):
        process.breaker.force_open(seconds=60, **WHO)

    assert not process.refused()


@pytest.fixture
def full_server(server: ValkeyProcess) -> Iterator[ValkeyProcess]:
    """That server, which has no memory left for a write."""
    server.client().config_set("maxmemory", 1)
    yield server
    server.client().config_set("maxmemory", 0)


def test_order_that_the_store_refuses_is_an_error(full_server: ValkeyProcess) -> None:
    """A store that answers but keeps nothing has told no other process; no event is announced."""
    process = Process(full_server.url)

    with pytest.raises(StoreUnavailableError, match="forced_open"):
        process.breaker.force_open(seconds=60, **WHO)

    assert not process.refused()
    assert not process.listening.heard


def test_process_goes_on_counting_while_the_store_takes_no_writes(
    full_server: ValkeyProcess,
) -> None:
    """Such a store answers reads in between: failures seen before that must still count."""
    process = Process(full_server.url)

    for _ in range(8):
        process.fail(1)
        process.pulse.refresh()  # with the failure: the store refuses the write
        process.pulse.refresh()  # without evidence: the store answers

    assert process.breaker.state is State.OPEN


@pytest.mark.parametrize("body", ['[0,"half_forced",0,"",""]', '[0,"",0,"","",1]', "7", "{"])
def test_circuit_of_another_version_is_closed_until_it_changes(
    server: ValkeyProcess, body: str
) -> None:
    """In an upgrade, a circuit that only newer processes can read fails no call, and can open."""
    process = Process(server.url)
    server.client().hset(process.store.key("circuits"), "users", f"3|0|{body}")

    assert not process.breaker.call(str)
    process.open()

    assert process.breaker.circuit.generation > 3


def test_generation_does_not_repeat_after_a_flush(server: ValkeyProcess) -> None:
    """A circuit that opens again after the store has forgotten it gets a new number."""
    process = Process(server.url)
    process.open()
    before = process.breaker.circuit.generation
    server.flush()
    wait_until(lambda: process.breaker.state is State.CLOSED, SECONDS, "the flush is noticed")

    process.open()

    assert process.breaker.circuit.generation > before > 0


def test_process_notices_that_a_failover_undid_its_own_change(server: ValkeyProcess) -> None:
    """A primary that dies may take the last change with it: what is left is what is agreed."""
    process = Process(server.url)
    process.breaker.reset(**WHO)
    process.pulse.refresh()
    client, key = server.client(), process.store.key("circuits")
    before: Any = client.hget(key, "users")
    process.breaker.force_open(seconds=60, **WHO)
    assert process.breaker.known_state is State.FORCED_OPEN

    client.hset(key, "users", before)
    process.pulse.refresh()

    assert process.breaker.known_state is State.CLOSED


def test_call_that_began_before_a_flush_counts_for_no_later_circuit(server: ValkeyProcess) -> None:
    """Its result is dropped, even if its process has not noticed the flush and the new circuit."""
    namespace, policy = uuid4().hex, replace(LONG, minimum_calls=1)
    early, late = (Process(server.url, policy, namespace=namespace) for _ in range(2))
    early.breaker.reset(**WHO)
    assert late.breaker.state is State.CLOSED

    def outlive_a_flush() -> None:
        server.flush()
        early.breaker.reset(**WHO)
        raise ConnectionError

    with pytest.raises(ConnectionError):
        late.breaker.call(outlive_a_flush)
    late.pulse.refresh()

    assert not late.refused()
    late.fail(1)
    wait_until(late.refused, SECONDS, "a call that began after the flush counts")


def test_store_in_other_hands_fails_no_call(server: ValkeyProcess) -> None:
    """A foreign value among the circuits is ignored, and breakers still work."""
    process = Process(server.url)
    server.client().hset(process.store.key("circuits"), "orders", "mine!")

    assert not process.breaker.call(str)
    process.open()


def test_lone_process_needs_no_other_to_see_what_it_sees(server: ValkeyProcess) -> None:
    """Where two must have seen failures, one that has lost the store opens its own circuit."""
    process = Process(server.url, replace(LONG, min_reporters=2))
    process.fail(20)
    assert not process.refused()
    server.kill()

    process.fail(20)

    wait_until(process.refused, SECONDS, "the circuit is open")


def test_pulse_of_an_event_loop_that_stopped_is_not_waited_for(server: ValkeyProcess) -> None:
    """A coroutine that is never resumed does not leave its process without a breaker."""
    process = Process(server.url)
    loop = asyncio.new_event_loop()
    server.client().client_pause(300)
    pulsing = loop.create_task(process.breaker.refusal_async())
    loop.run_until_complete(asyncio.sleep(0.02))

    def opened() -> bool:
        process.fail()
        return process.breaker.state is State.OPEN

    wait_until(opened, SECONDS, "the circuit is open")

    assert loop.run_until_complete(pulsing) is not None
    loop.close()


def test_order_on_an_event_loop_does_not_wait_for_its_own_pulse(server: ValkeyProcess) -> None:
    """An order gets through while a coroutine of the same thread waits for the store's answer."""
    process = Process(server.url)

    async def order() -> None:
        process.breaker.call(str)
        await asyncio.sleep(PULSE_SECONDS * 1.1)  # until the next call sends a pulse
        server.client().client_pause(300)
        pulsing = asyncio.create_task(process.breaker.refusal_async())
        await asyncio.sleep(0.01)
        with suppress(StoreUnavailableError):
            process.breaker.force_open(seconds=60, **WHO)
        await pulsing

    thread = threading.Thread(target=asyncio.run, args=(order(),), daemon=True)
    thread.start()
    thread.join(SECONDS)

    assert not thread.is_alive()


def forked(url: str, namespace: str, *, kill: int = 0) -> float:
    """Run `breaker_forker`; return for how many seconds the circuit is open in its child."""
    done = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-m", breaker_forker.__name__, url, namespace, str(kill)],
        env=inherited_env({"PYTHONPATH": import_path()}),
        capture_output=True,
        check=True,
        timeout=120,
    )
    seconds: float = json.loads(done.stdout)
    return seconds


def test_breaker_used_before_a_fork_is_shared_with_the_child(server: ValkeyProcess) -> None:
    """The circuit that a child opens, on connections of its own, is open for all processes."""
    namespace = uuid4().hex

    forked(server.url, namespace)

    other = Process(server.url, namespace=namespace)
    wait_until(other.refused, SECONDS, "the circuit is open for another process")


def test_child_that_cannot_reach_the_store_keeps_time(server: ValkeyProcess) -> None:
    """An open circuit that a child inherits stays open for its time, not for decades."""
    assert 10 < forked(server.url, uuid4().hex, kill=server.pid) <= 30
