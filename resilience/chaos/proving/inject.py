"""Brings about one fault of a proof, in the whole fleet, and undoes it."""

import threading
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, Final, Protocol

from resilience.breaker import Breaker, State
from resilience.bulkhead import Slots
from resilience.bulkhead.room import READING_SECONDS
from resilience.chaos.proving.plan import Planned
from resilience.chaos.proving.records import FILLER, Record
from resilience.dependency import Dependency
from resilience.errors import (
    AttemptTimeoutError,
    BulkheadFullError,
    CircuitOpenError,
    ConfigurationError,
)
from resilience.faults import Fault
from resilience.pulse import PULSE_SECONDS, STALE_SECONDS
from resilience.tasks.admission import depth_of
from resilience.tasks.resilience import Resilience

ACTOR: Final = "resilience prove"
REASON: Final = "proof of faults"
SECONDS: Final = 600.0
"""A fault that this process could not end, as it was killed, ends by itself after so long."""
SLOW_SHARE: Final = 0.8
"""Of the dependency's timeout: slow, and yet an answer."""
SLOW_SECONDS: Final = 1.0
"""Without a timeout."""
DRAIN_SECONDS: Final = 60.0
"""Longest wait until a queue that was filled is empty again."""
SPREAD_SECONDS: Final = 0.1
"""What an order takes to reach all processes, besides the age of what they know."""
MARK_SECONDS: Final = 0.001
"""Each call of a dependency is delayed so long all the while, which announces it."""
ORDERED: Final = {"killed": "hang", "cold": "error"}
"""What is ordered for a kind that is no fault by itself."""


class Fleet(Protocol):
    """The workers of the app."""

    def pause(self, name: str) -> None:
        """Keep a worker from taking messages."""

    def resume(self, name: str) -> None:
        """Let it go on."""

    def kill(self, pid: int) -> bool:
        """Kill the worker that *pid* is a process of; tell whether there is one."""

    def await_restarts(self) -> None:
        """Wait until the workers that were killed run again."""


def name_of(planned: Planned) -> str:
    """Return the name of the ordered fault."""
    return f"proof-{planned.dependency}"


def spread(adopted: Resilience, names: Iterable[str]) -> None:
    """Wait until all processes know what was ordered about dependencies.

    The next call of each asks what is new, if what it knows is older than a pulse.
    """
    guarded = all(adopted.dependencies[name].breaker is not None for name in names)
    threading.Event().wait(SPREAD_SECONDS + (PULSE_SECONDS if guarded else STALE_SECONDS))


class Injections:
    """Brings about the faults of one app."""

    def __init__(self, adopted: Resilience, fleet: Fleet | None = None) -> None:
        """Inject nothing yet; without a *fleet* nothing of the kinds `full` and `late`."""
        self._adopted = adopted
        self._fleet = fleet

    def mark_calls(self) -> None:
        """Let every call of every dependency be announced until the end."""
        for name in self._adopted.dependencies:
            fault = Fault(dependency=name, kind="latency", delay_seconds=MARK_SECONDS)
            self._adopted.faults.set(
                fault, actor=ACTOR, reason=REASON, seconds=86_400.0, name=f"proof-mark-{name}"
            )

    @contextmanager
    def in_force(self, planned: Planned) -> Iterator[dict[str, int]]:
        """Let a fault be in force for the block.

        Yields:
            Dependencies whose circuit did not open, and after how many failures.
        """
        dependency = self._adopted.dependencies[planned.dependency]
        with ExitStack() as stack:
            closed: dict[str, int] = {}
            match planned.kind:
                case "refused":
                    closed = self._trip(dependency)
                    stack.callback(self.close, [dependency.name])
                case "full":
                    stack.enter_context(self._filled(dependency))
                case "late":
                    stack.enter_context(self._paused(dependency))
                case _:
                    self._order(planned, dependency)
                    stack.callback(self.end, planned)
            yield closed

    def end(self, planned: Planned) -> None:
        """End an ordered fault before its block does; harmless if there is none."""
        self._adopted.faults.clear(name_of(planned), actor=ACTOR, reason=REASON)

    def close(self, names: Iterable[str]) -> None:
        """Reset the circuits of dependencies."""
        for name in names:
            breaker = self._adopted.breaker(name)
            if isinstance(breaker, Breaker):
                breaker.reset(actor=ACTOR, reason=REASON)

    def _order(self, planned: Planned, dependency: Dependency) -> None:
        how: Mapping[str, Any] = {"kind": ORDERED.get(planned.kind, planned.kind)}
        if planned.kind == "slow":
            slow = SLOW_SHARE * dependency.timeout if dependency.timeout else SLOW_SECONDS
            how = {"kind": "latency", "delay_seconds": slow}
        fault = Fault(dependency=dependency.name, **how)
        self._adopted.faults.set(
            fault, actor=ACTOR, reason=REASON, seconds=SECONDS, name=name_of(planned)
        )

    def _trip(self, dependency: Dependency) -> dict[str, int]:
        """Let the circuit open by timeouts if it can, and keep it open."""
        breaker, closed = self._adopted.breaker(dependency.name), {}
        if not isinstance(breaker, Breaker):
            return {}
        policy = breaker.policy
        ways = policy.failure_ratio, policy.consecutive_failures
        if any(ways) and policy.failure_if is None and policy.min_reporters == 1:
            most = 2 * max(policy.minimum_calls, policy.consecutive_failures or 0)
            if not any(self._refuses(breaker, dependency) for _ in range(most)):
                closed[dependency.name] = most
        breaker.force_open(seconds=SECONDS, actor=ACTOR, reason=REASON)
        return closed

    def _refuses(self, breaker: Breaker, dependency: Dependency) -> bool:
        """Let one more call time out; tell whether the circuit refuses calls by then."""

        def time_out() -> None:
            raise AttemptTimeoutError(dependency.name, dependency.timeout or 1.0)

        with suppress(AttemptTimeoutError, CircuitOpenError):
            breaker.call(time_out)
        self._adopted.pulse.refresh()  # failures are counted with the next pulse
        return breaker.known_state is State.OPEN

    @contextmanager
    def _filled(self, dependency: Dependency) -> Iterator[None]:
        slots = self._adopted.slots(dependency.name)
        with ExitStack() as stack:
            if slots is not None:
                stack.enter_context(_taken(slots))
            if dependency.max_queue is not None:
                stack.callback(self._drain, dependency)
                stack.enter_context(self._paused(dependency))
                self._fill(dependency, dependency.max_queue)
            yield

    @contextmanager
    def _paused(self, dependency: Dependency) -> Iterator[None]:
        if self._fleet is None:
            msg = f"{dependency.name}: no worker to pause; leave out the kinds 'full' and 'late'"
            raise ConfigurationError(msg)
        self._fleet.pause(dependency.name)
        try:
            yield
        finally:
            self._fleet.resume(dependency.name)

    def _fill(self, dependency: Dependency, most: int) -> None:
        # The worker may have taken some messages, and not begun them.
        taken = dependency.concurrency * dependency.prefetch + 1
        for _ in range(most + taken):
            try:
                self._adopted.app.send_task(FILLER, queue=dependency.queue)
            except BulkheadFullError:
                break
        threading.Event().wait(READING_SECONDS)  # publishers know older depths so long

    def _drain(self, dependency: Dependency) -> None:
        tick = threading.Event()
        for _ in range(int(DRAIN_SECONDS / 0.1)):
            with self._adopted.app.producer_or_acquire(None) as producer:
                if not depth_of(self._adopted.app, producer, dependency.queue):
                    break
            tick.wait(0.1)
        tick.wait(READING_SECONDS)  # as above


@contextmanager
def _taken(slots: Slots) -> Iterator[None]:
    """Hold all slots of a dependency for the block."""
    held, over = threading.Barrier(slots.slots + 1), threading.Event()

    def hold() -> None:
        held.wait(DRAIN_SECONDS)
        over.wait(SECONDS)

    with ThreadPoolExecutor(slots.slots) as pool:
        for _ in range(slots.slots):
            pool.submit(slots.call, DRAIN_SECONDS, hold)
        try:
            held.wait(DRAIN_SECONDS)
            yield
        finally:
            over.set()


def struck(planned: Planned, records: Iterable[Record], tasks: Mapping[str, Any]) -> bool:
    """Tell from the records of all processes whether a planned fault has struck.

    Args:
        planned: The fault; `killed` leaves no record, so that it never has by these.
        records: What all processes wrote.
        tasks: Of the app, by name: one of the dependency must be dropped if it is `late`.
    """

    def has_struck(record: Record) -> bool:
        match planned.kind, record:
            case "killed", _:
                return False
            case "late", {"record": "BudgetExceeded", "task": task, "late": late}:
                owner = getattr(tasks.get(task), "dependency", None)
                return bool(owner == planned.dependency and late >= 0)
            case "full", {"record": "BulkheadFull" | "JobRefused", "dependency": name}:
                return bool(name == planned.dependency)
            case "refused", _:
                return _was_refused(record, planned.dependency)
            case _, {"record": "FaultInjected", "fault": fault}:
                return bool(fault == name_of(planned))
            case _:
                return False

    return any(map(has_struck, records))


def _was_refused(record: Record, dependency: str) -> bool:
    texts = (record.get("reason"), record.get("error"), *dict(record.get("reasons") or {}).values())
    refusals = CircuitOpenError.__name__, str(CircuitOpenError(dependency))
    return record.get("dependency") == dependency and any(
        str(text).startswith(refusals) for text in texts
    )
