"""Three processes on a real server: whatever happens, in whatever order, the circuit is one."""

from collections import Counter
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from resilience import CircuitOpenError
from resilience.breaker import Breaker, BreakerPolicy
from resilience.clock import SystemClock
from resilience.events import Event
from resilience.pulse import Pulse
from resilience.store import Store
from resilience.store.fleet import Kept, StoreFleet
from resilience.testing.valkey import ValkeyProcess

PROBES = 2
POLICY = BreakerPolicy(
    minimum_calls=4,
    window_seconds=300,
    open_seconds=1_000,
    open_seconds_max=1_000,
    half_open_probes=PROBES,
    probe_seconds=300,
    consecutive_failures=None,
)
HOSTS = st.integers(0, 2)
SECONDS = 120


class HostClock:
    """The clock of a host: it began at some other moment, and its wall time jumps."""

    def __init__(self, ahead: float) -> None:
        """Begin *ahead* of the others; skipped time is added to real time."""
        self._real = SystemClock()
        self.ahead = ahead
        self.wall = 0.0

    def now(self) -> float:
        """Return what the host's clock shows."""
        return self._real.now() + self.wall

    def monotonic(self) -> float:
        """Return seconds since this host was started."""
        return self._real.monotonic() + self.ahead


class Model:
    """What the fleet agrees on, as one would write it for a single process."""

    def __init__(self) -> None:
        """Begin closed."""
        self.generation, self.opened = 0, False
        self.flush()

    def flush(self) -> None:
        """Forget everything, as the store does."""
        self.opened = False
        self.renew()

    def renew(self) -> None:
        """Begin a generation."""
        self.generation += 1
        self.ok = self.failed = self.probing = 0
        self.due = False

    def admits(self) -> bool:
        """Tell whether a call is let through, as a probe if the circuit is open and due."""
        if not self.opened:
            return True
        return self.due and self.probing + self.ok + self.failed < PROBES

    def begin(self) -> tuple[int, bool]:
        """Let a call through; return its generation, and whether it is a probe."""
        self.probing += self.opened
        return self.generation, self.opened

    def end(self, call: tuple[int, bool], *, good: bool) -> str | None:
        """Count how a call ended; return the transition that it makes."""
        generation, probe = call
        if generation != self.generation:
            return None
        self.ok, self.failed = self.ok + good, self.failed + (not good)
        calls = self.ok + self.failed
        bad = self.failed / calls >= POLICY.failure_ratio  # type: ignore[operator]  # it has one
        if probe:
            self.probing -= 1
            if calls < PROBES:
                return None
            self.opened = bad
        elif calls < POLICY.minimum_calls or not bad:
            return None
        else:
            self.opened = True
        self.renew()
        return "CircuitOpened" if self.opened else "CircuitClosed"


class Host:
    """One process: its own store, pulse, breaker, and calls under way."""

    def __init__(self, url: str, namespace: str, number: int, heard: Counter[str]) -> None:
        """Join the others."""
        self.clock = HostClock(1e6 * number)
        self.store = Store(url, namespace=namespace, timeout_seconds=SECONDS, clock=self.clock)
        self.pulse = Pulse(StoreFleet(self.store), clock=self.clock)

        def hear(event: Event) -> None:
            heard[type(event).__name__] += 1

        self.breaker = Breaker("users", self.pulse, POLICY, listeners=[hear], clock=self.clock)
        self.calls: list[tuple[Any, tuple[int, bool]]] = []

    def sync(self) -> None:
        """Tell all that was seen, and learn all that was agreed."""
        self.pulse.refresh()


class SharedCircuit(RuleBasedStateMachine):
    """Three hosts against the model; what one does, the others have learnt before the next step."""

    url: str

    @initialize()
    def start(self) -> None:
        """Begin with an empty fleet."""
        self.heard: Counter[str] = Counter()
        self.expected: Counter[str] = Counter()
        self.namespace = uuid4().hex
        self.hosts = [Host(self.url, self.namespace, n, self.heard) for n in range(3)]
        self.model = Model()
        self.half_opened = 0
        self.generations: dict[int, int] = {}

    def sync(self) -> None:
        """Let all hosts learn what happened."""
        for host in (*self.hosts, *self.hosts):
            host.sync()

    @rule(number=HOSTS)
    def begin(self, number: int) -> None:
        """Begin a call, which is let through exactly if the model says so."""
        host = self.hosts[number]
        block = host.breaker
        # One that was refused for want of a permit is not asked again for a moment.
        host.breaker._no_permit_until = float("-inf")  # noqa: SLF001 - or we would wait for it
        if self.model.admits():
            first = self.model.opened and self.model.generation != self.half_opened
            admitted = block._enter(block._monotonic())  # noqa: SLF001 - as `with`, but ends in any order
            self.half_opened = self.model.generation if first else self.half_opened
            self.expected["CircuitHalfOpened"] += first
            host.calls.append((admitted, self.model.begin()))
        else:
            with pytest.raises(CircuitOpenError):
                block._enter(block._monotonic())  # noqa: SLF001 - as above

    @precondition(lambda self: any(host.calls for host in self.hosts))
    @rule(data=st.data(), good=st.booleans())
    def end(self, data: st.DataObject, good: bool) -> None:  # noqa: FBT001 - Hypothesis names it
        """End any call that is under way, however old, on whatever host."""
        host = data.draw(st.sampled_from([host for host in self.hosts if host.calls]))
        self.finish(host, data.draw(st.integers(0, len(host.calls) - 1)), good=good)

    def finish(self, host: Host, at: int, *, good: bool) -> None:
        """End one call of *host*."""
        admitted, call = host.calls.pop(at)
        error = None if good else ConnectionError("gone")
        host.breaker._leave(admitted, error)  # noqa: SLF001 - as above
        transition = self.model.end(call, good=good)
        if transition is not None:
            self.expected[transition] += 1
        self.sync()

    @rule(number=HOSTS, good=st.booleans(), times=st.integers(1, 5))
    def burst(self, number: int, good: bool, times: int) -> None:  # noqa: FBT001 - as above
        """Call several times in a row."""
        for _ in range(times):
            admitted = self.model.admits()
            self.begin(number)
            if admitted:
                self.finish(self.hosts[number], -1, good=good)

    @precondition(lambda self: self.model.opened)
    @rule()
    def wait(self) -> None:
        """Let the open time pass: as the server's clock cannot be turned, turn back its end."""
        store = self.hosts[0].store
        kept = Kept.parse(store.client.hget(store.key("circuits"), "users"))  # type: ignore[arg-type]  # no coroutine
        passed = replace(kept, until_ms=0)
        store.client.hset(store.key("circuits"), "users", passed.text())
        self.model.due = True
        self.sync()

    @rule(number=HOSTS, hours=st.floats(-1e4, 1e4))
    def set_clock(self, number: int, hours: float) -> None:
        """Set a host's clock: it has no say in anything."""
        self.hosts[number].clock.wall += hours * 3_600

    @rule(number=HOSTS, seconds=st.floats(0, 1_000))
    def suspend(self, number: int, seconds: float) -> None:
        """Let a host sleep: its monotonic time stands still or runs on, the fleet's does not."""
        self.hosts[number].clock.ahead += seconds
        self.sync()

    @rule()
    def flush(self) -> None:
        """Empty the store: all circuits are closed, and what began before counts for nothing."""
        if not self.hosts[0].breaker.circuit.generation:
            return  # nothing but counts would be lost, and calls under way go on
        client = self.hosts[0].store.client
        for key in client.keys(self.hosts[0].store.key("*")):
            client.delete(key)
        self.model.flush()
        self.sync()

    @invariant()
    def no_more_probes_than_permits(self) -> None:
        """Never are more probes under way than permitted."""
        assert self.model.probing <= PROBES

    @invariant()
    def every_transition_is_told_once(self) -> None:
        """The hosts together announced exactly what the model says happened."""
        assert self.heard == +self.expected

    @invariant()
    def all_hosts_agree(self) -> None:
        """No host takes an open circuit for a closed one, or the reverse."""
        for host in self.hosts:
            assert bool(host.breaker.circuit.attempt) is self.model.opened

    @invariant()
    def no_generation_repeats(self) -> None:
        """A number stands for one generation of the model for ever; 0 is none."""
        for host in self.hosts:
            number = host.breaker.circuit.generation
            known = self.generations.setdefault(number, self.model.generation)
            assert number == 0 or known == self.model.generation

    def teardown(self) -> None:
        """Leave nothing open."""
        for host in getattr(self, "hosts", ()):
            host.store.client.close()


@pytest.mark.parametrize("examples", [60, pytest.param(150, marks=pytest.mark.long)])
def test_shared_circuit_follows_its_model(
    valkey: ValkeyProcess, monkeypatch: pytest.MonkeyPatch, examples: int
) -> None:
    """Calls that end late, clocks that jump, hosts that sleep, a store that forgets: one circuit.

    Never more probes than permits; refused calls stay refused; results of an older generation
    change nothing; each transition is announced once. (The pause after a closing, in which hosts
    first hear of each other, has tests of its own: the model has no time.)
    """
    monkeypatch.setattr("resilience.breaker.keeper.HEARING_SECONDS", 0.0)
    SharedCircuit.url = valkey.url
    run_state_machine_as_test(
        SharedCircuit,
        settings=settings(
            max_examples=examples,
            stateful_step_count=30,
            suppress_health_check=list(HealthCheck),
        ),
    )
