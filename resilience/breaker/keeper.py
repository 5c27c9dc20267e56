"""What one process knows of a circuit, and the steps by which it changes."""

import json
import random
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, replace
from types import CoroutineType

from resilience.breaker.classify import FAILED, NEUTRAL, OK, Classifier, Kind
from resilience.breaker.gate import Gate
from resilience.breaker.policy import BreakerPolicy
from resilience.breaker.state import (
    RETRY_AFTER_SECONDS_MAX,
    Circuit,
    State,
    closed,
    opened,
    passed,
    state_at,
    why_open,
)
from resilience.clock import Clock, SystemClock
from resilience.errors import BUGS, CircuitOpenError, retry_after_of, text_of
from resilience.events import (
    CircuitClosed,
    CircuitHalfOpened,
    CircuitOpened,
    Event,
    Listener,
    StoreValueUnreadable,
    announce,
    log_event,
)
from resilience.pulse import PULSE_SECONDS, Pulse
from resilience.store.fleet import EndProbe, Evidence, Kept, Probes, Swap, TakeProbe, Window
from resilience.store.members import Steps

NO_PERMIT_SECONDS = 0.05
"""A half-open circuit without a free permit is not asked again for so long."""
HEARING_SECONDS = 2 * PULSE_SECONDS
"""A circuit that has just closed does not open before all processes had time to tell what they
see: failures are told at once, successes with the next pulse, and its window is empty."""
ERROR_LENGTH = 200
"""Most characters of an error that are announced and kept as the cause of an open circuit."""
NO_VALUE = object()
"""What a guarded block returns: nothing that a `failure_if_result` could judge."""
MAY_OPEN = (State.CLOSED, State.OBSERVED)
NOT_ADMITTED = (State.OPEN, State.HALF_OPEN, State.FORCED_OPEN)


@dataclass(slots=True)
class Pass:
    """What an admitted call carries: its gate, and the owner of its permit if it is a probe.

    Not frozen, which would take three times as long to make; every block makes one.
    """

    gate: Gate
    began: float
    probe: str = ""


class Keeper:
    """What one process knows of a circuit, off the hot path.

    Steps are generators that ask the fleet; the pulse drives them, with or without an event loop.

    Attributes:
        name: The dependency.
        policy: When the circuit opens and closes.
        unreadable: Whether the store keeps what is no circuit; it counts as a closed one, until it
            opens.
    """

    def __init__(
        self,
        name: str,
        pulse: Pulse,
        policy: BreakerPolicy | None = None,
        *,
        neutral: tuple[type[BaseException], ...] = (),
        bugs: tuple[type[BaseException], ...] = BUGS,
        listeners: Iterable[Listener] = (log_event,),
        clock: Clock | None = None,
        dice: random.Random | None = None,
    ) -> None:
        """Join *pulse*; connects to nothing yet.

        Args:
            name: The dependency; breakers of one name and namespace share a circuit.
            pulse: What connects the processes.
            policy: When it opens and closes.
            neutral: More exceptions that say nothing about the dependency.
            bugs: Exceptions that say nothing about it because the code is wrong.
            listeners: Who hears of transitions. Each is announced once in the fleet.
            clock: Where time comes from.
            dice: Where jitter comes from.
        """
        self.name = name
        self.policy = policy or BreakerPolicy()
        self._pulse = pulse
        self._listeners = listeners
        self._monotonic = (clock or SystemClock()).monotonic
        self._dice = dice or random.Random()  # noqa: S311 - jitter is no secret
        self._classifier = Classifier(self.policy, neutral, bugs)
        self._slow_seconds = self.policy.slow_seconds
        self._judges_values = self.policy.failure_if_result is not None
        self._kept: Kept | None = None
        self._asked: Kept | None = None
        self._circuit = Circuit()
        self.unreadable = False
        self._no_permit_until = self._closed_at = float("-inf")
        self._last_error = float("-inf"), ""
        self._gate = Gate(0, float("-inf"))
        pulse.join(self)

    def admit(self) -> Steps[Pass]:
        """Let a call pass, as a probe if the circuit is half-open, or raise `CircuitOpenError`."""
        now = self._monotonic()
        for _ in range(2):
            circuit, kept = self._circuit, self._kept
            if state_at(circuit, self._pulse.fleet_time(now)) not in NOT_ADMITTED:
                return Pass(self._gate, now)
            refused = self.refused(now)
            if refused is not None:
                raise refused
            owner = uuid.uuid4().hex
            probes: Probes | None = yield TakeProbe(
                name=self.name,
                generation=circuit.generation,
                owner=owner,
                most=self.policy.half_open_probes,
                seconds=self.policy.probe_seconds,
            )
            if probes is not None and probes.granted:
                if probes.first:
                    permits = self.policy.half_open_probes
                    scope = self._pulse.scope
                    self._announce(
                        CircuitHalfOpened(dependency=self.name, permits=permits, scope=scope)
                    )
                return Pass(self._gate, now, owner)
            if probes is None or passed(probes, self.policy) is None:
                break
            # All have reported, but whoever was last is gone before it could conclude.
            yield from self._conclude(circuit, kept, probes)
        self._no_permit_until = now + NO_PERMIT_SECONDS
        self._pulse.hasten(now)
        raise CircuitOpenError(self.name, NO_PERMIT_SECONDS)

    def refused(self, now: float) -> CircuitOpenError | None:
        """Return why a call is refused without asking anybody; None: it may not be."""
        circuit = self._circuit
        fleet_now = self._pulse.fleet_time(now)
        state = state_at(circuit, fleet_now)
        if state is State.FORCED_OPEN:
            return CircuitOpenError(self.name, circuit.manual_until - fleet_now)
        if state is State.OPEN:
            return CircuitOpenError(self.name, circuit.until - fleet_now)
        if state is State.HALF_OPEN and now < self._no_permit_until:
            return CircuitOpenError(self.name, self._no_permit_until - now)
        return None

    def settle(self, admitted: Pass, error: BaseException | None, value: object) -> Steps[bool]:
        """Count how a call ended; return whether the fleet should hear of it at once."""
        now = self._monotonic()
        gate = admitted.gate
        slow = self._slow_seconds is not None and now - admitted.began > self._slow_seconds
        kind = self._kind(error, value)
        said = retry_after_of(error) if error is not None and kind == FAILED else None
        if said is not None:
            gate.retry_at = max(gate.retry_at, now + min(said, RETRY_AFTER_SECONDS_MAX))
        if kind == FAILED:
            self._note_failure(now, error)
        if admitted.probe:
            yield from self._end_probe(admitted, FAILED if slow and kind == OK else kind)
            return False
        if kind == NEUTRAL:
            return False
        if slow:
            gate.slow()
        if kind == OK:
            gate.good()
            return False
        gate.fail(now)
        if gate is not self._gate:
            return False
        urgent = self._pulse.hasten(now)
        gate.until = min(gate.until, self._pulse.due)
        return urgent

    def _note_failure(self, now: float, error: BaseException | None) -> None:
        """Remember the last failure as text: the error itself would keep its frames alive."""
        text = "the value that it returned counts as a failure"
        if error is not None:
            text = f"{type(error).__name__}: {text_of(error)}"
        # Halves of characters are no JSON.
        self._last_error = now, text[:ERROR_LENGTH].encode(errors="backslashreplace").decode()

    def _kind(self, error: BaseException | None, value: object) -> Kind:
        if error is not None:
            return self._classifier.kind(error)
        if isinstance(value, CoroutineType):
            return NEUTRAL
        if value is NO_VALUE:
            return OK
        return self._classifier.kind_of_result(value)

    def _end_probe(self, admitted: Pass, result: Kind) -> Steps[None]:
        circuit, kept = self._circuit, self._kept
        generation = admitted.gate.generation
        probes: Probes | None = yield EndProbe(
            name=self.name, generation=generation, owner=admitted.probe, result=result
        )
        self._no_permit_until = float("-inf")
        if probes is not None and circuit.generation == generation:
            yield from self._conclude(circuit, kept, probes)

    def _conclude(self, circuit: Circuit, kept: Kept | None, probes: Probes) -> Steps[None]:
        """Close or open again, if all probes have reported."""
        verdict = passed(probes, self.policy)
        if verdict is None:
            return
        calls, scope = probes.ok + probes.failed, self._pulse.scope
        if verdict:
            event: Event = CircuitClosed(
                dependency=self.name, probes=calls, failed=probes.failed, scope=scope
            )
            now = self._pulse.fleet_time(self._monotonic())
            yield from self.change(kept, closed(circuit, now), event)
            return
        why = Window(calls=calls, failed=probes.failed)
        yield from self._open(circuit, kept, why, f"{probes.failed} of {calls} probes failed")

    def evidence(self, now: float) -> Evidence | None:
        """Return what was seen since the last pulse."""
        gate, self._asked = self._gate, self._kept
        ended = gate.drain()
        if ended is None:
            return None
        good, bad, slow, tail = ended
        return Evidence(
            name=self.name,
            generation=gate.generation,
            window_seconds=self.policy.window_seconds,
            ok=good,
            failed=bad,
            failed_age=max(0.0, now - gate.failed_at),
            slow=slow,
            tail=tail,
        )

    def adopt(self, kept: Kept | None, until: float) -> None:
        """Learn what the fleet has agreed on, unless a call changed that since it was asked."""
        if self._kept is self._asked:
            self._follow(kept, until)

    def _follow(self, kept: Kept | None, until: float) -> None:
        if kept is not self._kept:
            if kept != self._kept:
                self._learn(kept)
            self._kept = kept
        circuit = self._circuit
        if circuit.attempt or circuit.manual is not None:
            state = state_at(circuit, self._pulse.fleet_time(self._monotonic()))
            if state in NOT_ADMITTED:
                until = float("-inf")
        self._gate.until = until

    def judge(self, window: Window) -> Steps[None]:
        """Open if the fleet has seen enough."""
        circuit, kept = self._circuit, self._kept
        now = self._pulse.fleet_time(self._monotonic())
        if state_at(circuit, now) not in MAY_OPEN or now < circuit.until:
            return
        age = self._monotonic() - self._closed_at
        if age < HEARING_SECONDS:
            return
        if age < self.policy.window_seconds:
            # How many calls the fleet makes is not known yet, and a ratio turns soon enough.
            window = replace(window, consecutive=0)
        if self._pulse.scope == "local" and window.reporters:
            # There is nobody else to see the same: a lone process protects itself.
            window = replace(window, reporters=self.policy.min_reporters)
        why = why_open(window, self.policy)
        if why is not None:
            yield from self._open(circuit, kept, window, why)

    def restart(self) -> None:
        """Begin to count again, in a forked child."""
        self._gate = Gate(self._circuit.generation, float("-inf"))
        self._dice = random.Random()  # noqa: S311 - children must not roll the same

    def _open(self, circuit: Circuit, kept: Kept | None, seen: Window, reason: str) -> Steps[None]:
        monotonic = self._monotonic()
        now, retry_after = self._pulse.fleet_time(monotonic), self._gate.retry_at - monotonic
        new = opened(circuit, self.policy, now, dice=self._dice, retry_after=retry_after)
        failed_at, error = self._last_error
        event = CircuitOpened(
            dependency=self.name,
            reason=reason,
            calls=seen.calls,
            failed=seen.failed,
            slow=seen.slow,
            seconds=new.until - now,
            scope=self._pulse.scope,
            observed=state_at(circuit, now) is State.OBSERVED,
            error=error if monotonic - failed_at <= self.policy.window_seconds else "",
        )
        yield from self.change(kept, new, event)

    def change(self, kept: Kept | None, new: Circuit, event: Event) -> Steps[bool]:
        """Make *new* the circuit unless somebody was faster; announce it if not."""
        at = self._pulse.fleet_time(self._monotonic())
        change = json.dumps({"event": type(event).__name__, "at": at, **event.details()})
        again, after = new.attempt > 1, new.kept()
        swapped: bool = yield Swap(
            name=self.name, expected=kept, new=after, change=change, again=again
        )
        if swapped:
            self._follow(after, self._pulse.due)
            self._announce(event)
        else:
            self._pulse.hasten(self._monotonic())
        return swapped

    def _learn(self, kept: Kept | None) -> None:
        before, self._kept, self._circuit = self._circuit, kept, Circuit.of(kept)
        now = self._pulse.fleet_time(self._monotonic())
        plausible = self._circuit.is_plausible(self.policy, now)
        self.unreadable = not (plausible and Circuit.can_read(kept))
        if kept is not None and self.unreadable:
            self._circuit = Circuit(generation=kept.generation)
            wrong = f"no circuit that closes in time: {kept.text()!r:.150}"
            self._announce(StoreValueUnreadable(key="circuits", name=self.name, error=wrong))
        newer = self._circuit.generation > before.generation  # a store that was lost knows less
        if newer and before.attempt and not self._circuit.attempt:
            self._closed_at = self._monotonic()
        self._no_permit_until = float("-inf")
        if self._gate.generation != self._circuit.generation:
            self._gate = Gate(self._circuit.generation, float("-inf"))

    def _announce(self, event: Event) -> None:
        announce(event, self._listeners)
