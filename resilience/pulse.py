"""The pulse: one small exchange that reports what a process saw and returns what is agreed."""

import asyncio
import os
import platform
import threading
import uuid
import weakref
from collections.abc import Mapping
from typing import Any, TypeVar

from resilience.clock import Clock, SystemClock
from resilience.errors import ConfigurationError, StoreUnavailableError
from resilience.store.fleet import Exchange, Kept, Question, Reply, StoreFleet, Swap
from resilience.store.members import Member, Steps, Tally, Watcher
from resilience.store.memory import MemoryFleet

T = TypeVar("T")

PULSE_SECONDS = 0.25
"""How often an active process sends a pulse."""
FAILURE_SECONDS = 0.02
"""A failure is reported at once, but pulses with failures are at least this far apart."""
STALE_SECONDS = 1.0
"""A snapshot older than this admits no call; a pulse must be sent first."""
WAIT_SECONDS = 0.1
"""How long a call with a stale snapshot waits for the pulse of another call."""
CLOCK_SECONDS = 60.0
"""After this time the store is asked for fleet time again."""
DRIFT = 0.001
"""Seconds that two clocks may drift apart in a second, while one of them is slewed."""


class Pulse:
    """Carries evidence up and decisions down, for all members in one exchange.

    Calls send the pulse themselves: the first call after `PULSE_SECONDS`, and any call that fails,
    at once. There is no thread and no timer. Safe across fork, with threads, gevent and event
    loops.

    While the store is down the process decides alone (`scope` is `local`): it starts from what was
    agreed before, and counts only what it sees itself.

    Attributes:
        due: When the next call must send a pulse, in monotonic seconds.
        scope: `fleet` or `local`.
        sent: Pulses sent by this process.
    """

    def __init__(self, fleet: StoreFleet | None, *, clock: Clock | None = None) -> None:
        """Share decisions with *fleet*; None: this process always decides alone."""
        self._fleet = fleet
        self._clock = clock or SystemClock()
        self._alone = MemoryFleet(clock=self._clock)
        self._members: dict[str, Member] = {}
        self._watcher: Watcher | None = None
        self._tally: Tally | None = None
        # The version of the circuits that the store sent last, and the circuits. They are one
        # tuple, so that a thread replaces both at once. The version is empty once this process has
        # changed a circuit itself: then the store must send all of them again.
        self._snapshot: tuple[str, Mapping[str, Kept]] = "", {}
        # This host's epoch time until the store answers: jobs and tokens carry times between hosts.
        self._offset = self._clock.now() - self._clock.monotonic()
        self._doubt = float("inf")  # see `_set_clock`
        self._alone.adopt({}, self._offset)
        self._timed = float("-inf")  # when the store was last asked for fleet time
        self.scope = "local" if fleet is None else "fleet"
        self._begin()
        this = weakref.ref(self)
        os.register_at_fork(after_in_child=lambda: _restart(this))

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._process = f"{platform.node()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        self.due = self._last = self._failures_sent = self._began = float("-inf")
        self.sent = 0
        self._hastened = False
        self._sender = 0
        self._beside: asyncio.Task[None] | None = None

    def restart(self) -> None:
        """Begin again in a forked child, with evidence, a lock and a name of its own."""
        self._begin()
        self._alone.restart()
        for member in self._members.values():
            member.restart()
        if self._tally is not None:
            self._tally.restart()
        if self._watcher is not None:
            self._watcher.restart()

    def watch(self, watcher: Watcher) -> None:
        """Give *watcher* the state of the features from now on."""
        self._watcher = watcher
        self.due = float("-inf")

    def carry(self, tally: Tally) -> None:
        """Add to the fleet's totals what *tally* counts, from now on."""
        self._tally = tally

    def join(self, member: Member) -> None:
        """Carry the evidence of *member*, too, from now on.

        Raises:
            ConfigurationError: Another member has its name.
        """
        if member.name in self._members:
            msg = f"there is a breaker {member.name!r} on this pulse already; use that one"
            raise ConfigurationError(msg)
        self._members[member.name] = member
        self.due = float("-inf")

    def fleet_time(self, monotonic: float) -> float:
        """Return fleet time at *monotonic*: the store's time, whatever this host's clock says."""
        return monotonic + self._offset

    def time(self, *, older: float = CLOCK_SECONDS) -> float:
        """Return fleet time, whatever this host's clock says; it may go back a little.

        Asks the store if its last answer is more than *older* seconds old. Without a store it is
        this host's time.
        """
        now = self._clock.monotonic()
        if now - self._timed > older:
            if self._timed > 0:
                self._timed = now  # other threads use the last answer meanwhile
            self.refresh()
            now = self._clock.monotonic()
        return self.fleet_time(now)

    def hasten(self, now: float) -> bool:
        """Note that something urgent is to be reported; return whether a pulse may be sent now."""
        soonest = self._failures_sent + FAILURE_SECONDS
        self._hastened = True
        self.due = min(self.due, max(now, soonest))
        return now >= soonest

    def ask(self, question: Question, *, alone: bool = True) -> Any:  # noqa: ANN401 - by question
        """Ask the fleet, or this process alone if the store is down.

        Raises:
            StoreUnavailableError: The store is down, and this process must not decide *alone*.
        """
        if self._fleet is not None:
            try:
                answer = self._fleet.ask(question)
            except StoreUnavailableError:
                self._go_alone()
                if not alone:
                    raise
            else:
                self._note_answer(question, answer)
                return answer
        return self._alone.ask(question)

    async def ask_async(self, question: Question) -> Any:  # noqa: ANN401 - by question
        """Do the same as `ask` without blocking the event loop."""
        if self._fleet is not None:
            try:
                answer = await self._fleet.ask_async(question)
            except StoreUnavailableError:
                self._go_alone()
            else:
                self._note_answer(question, answer)
                return answer
        return self._alone.ask(question)

    def _note_answer(self, question: Question, answer: object) -> None:
        self.scope = "fleet"
        if answer and isinstance(question, Swap):
            self._snapshot = "", {**self._snapshot[1], question.name: question.new}

    def run(self, steps: Steps[T], *, alone: bool = True) -> T:
        """Drive *steps* to their end; raises as `ask`."""
        try:
            question = next(steps)
            while True:
                question = steps.send(self.ask(question, alone=alone))
        except StopIteration as done:
            result: T = done.value
            return result

    async def run_async(self, steps: Steps[T]) -> T:
        """Drive *steps* to their end without blocking the event loop."""
        try:
            question = next(steps)
            while True:
                question = steps.send(await self.ask_async(question))
        except StopIteration as done:
            result: T = done.value
            return result

    def beat(self, now: float) -> None:
        """Send a pulse unless another thread does; wait for that one if the snapshot is stale."""
        stale, turn = now - self._last > STALE_SECONDS, self._turn(now)
        if stale and turn.locked() and self._sender == threading.get_ident():
            # A coroutine of this thread holds the lock, and cannot go on while this function runs.
            self.refresh(patience=0.0)
        elif turn.acquire(blocking=stale, timeout=WAIT_SECONDS if stale else -1):
            try:
                if self.due <= now:
                    self.run(self._steps(now))
            finally:
                turn.release()

    def freshen(self, now: float) -> None:
        """Do the same as `beat` for a plain function, which may run on an event loop.

        On an event loop a task sends the pulse. The loop is blocked only if the snapshot is stale.
        """
        loop = asyncio._get_running_loop()  # noqa: SLF001 - the public one raises where none runs
        if loop is None:
            self.beat(now)
        elif now - self._last > STALE_SECONDS:
            self.refresh(patience=0.0)  # a coroutine of this loop may hold the lock
        elif self._beside is None or self._beside.done() or self._beside.get_loop() is not loop:
            self._beside = loop.create_task(self.beat_async(now))

    async def beat_async(self, now: float) -> None:
        """Do the same as `beat` without blocking the event loop."""
        stale, turn = now - self._last > STALE_SECONDS, self._turn(now)
        give_up = now + WAIT_SECONDS
        while not turn.acquire(blocking=False):
            if not stale or self._clock.monotonic() > give_up:
                return
            await asyncio.sleep(0.001)
        try:
            if self.due <= now:
                await self.run_async(self._steps(now))
        finally:
            turn.release()

    def refresh(self, *, patience: float = WAIT_SECONDS) -> float:
        """Send a pulse now and return fleet time; wait at most *patience* seconds for another's."""
        now = self._clock.monotonic()
        turn = self._turn(now)
        # If it is not acquired, a coroutine of this thread may hold it and wait for us: go on.
        held = turn.acquire(timeout=patience)
        try:
            self.run(self._steps(now))
        finally:
            if held:
                turn.release()
        return self.fleet_time(self._clock.monotonic())

    def _turn(self, now: float) -> threading.Lock:
        """Return the lock to send a pulse under; a new one if a stopped event loop holds it."""
        if self._lock.locked() and now - self._began > STALE_SECONDS:
            self._lock, self._began = threading.Lock(), now
        return self._lock

    def _steps(self, now: float) -> Steps[None]:
        self._sender, self._hastened = threading.get_ident(), False
        members = list(self._members.values())
        evidence = [seen for member in members if (seen := member.evidence(now)) is not None]
        # Concurrent calls need no pulse of their own: they use the snapshot, or wait for this one.
        self.due = now if now - self._last > STALE_SECONDS else now + PULSE_SECONDS
        began = self._began = self._clock.monotonic()
        watcher = self._watcher
        known = None if watcher is None else watcher.version
        version, circuits = self._snapshot
        batch = None if self._tally is None else self._tally.batch()
        reply: Reply = yield Exchange(
            process=self._process, evidence=evidence, version=version, flags=known, batch=batch
        )
        if batch is not None and self._tally is not None and reply.counted is not None:
            self._tally.settle(batch.number, reply.counted)
        ended = self._clock.monotonic()
        self.sent += 1
        if self.scope == "fleet":
            self._set_clock(reply.now, began, ended)
        self._last = self._timed = ended
        if any(seen.failed for seen in evidence):
            self._failures_sent = ended
        # It was hastened during the exchange, by a failure that the exchange did not report.
        self.due = ended + (FAILURE_SECONDS if self._hastened else PULSE_SECONDS)
        if reply.circuits is not None:
            circuits = reply.circuits
        self._snapshot = reply.version, circuits
        if watcher is not None and self.scope == "fleet" and watcher.version == known:
            watcher.receive(reply.flags)  # else it got another version during the exchange
        for member in members:
            member.adopt(circuits.get(member.name), self.due)
        for name, window in reply.windows.items():
            if window.reporters:  # else no process has seen a bad call
                yield from self._members[name].judge(window)

    def _set_clock(self, fleet_now: float, began: float, ended: float) -> None:
        """Take fleet time from an exchange, unless an earlier, quicker one is still more accurate.

        An exchange tells fleet time to within half its duration. The uncertainty grows with the
        age of the reading, as clocks drift. Two readings that differ by more than both their
        uncertainties mean that a clock was set. After NTP's clock filter (RFC 5905, section 10).
        """
        half, offset = (ended - began) / 2, fleet_now - (began + ended) / 2
        doubt = self._doubt + DRIFT * ended  # `_doubt` is that of monotonic time 0
        if half <= doubt or abs(offset - self._offset) > half + doubt:
            self._offset, self._doubt = offset, half - DRIFT * ended

    def _go_alone(self) -> None:
        if self.scope == "fleet":
            self.scope = "local"
            self._alone.adopt(self._snapshot[1], self._offset)


def _restart(this: "weakref.ref[Pulse]") -> None:
    pulse = this()
    if pulse is not None:
        pulse.restart()
