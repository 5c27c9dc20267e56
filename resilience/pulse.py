"""The one small exchange by which a process tells what it saw and learns what is agreed."""

import asyncio
import os
import platform
import threading
import uuid
import weakref
from collections.abc import Generator
from typing import Any, Protocol, TypeVar

from resilience.clock import Clock, SystemClock
from resilience.errors import ConfigurationError, StoreUnavailableError
from resilience.store.fleet import (
    Evidence,
    Exchange,
    Kept,
    Question,
    Reply,
    StoreFleet,
    Swap,
    Window,
)
from resilience.store.memory import MemoryFleet

T = TypeVar("T")
Steps = Generator[Question, Any, T]
"""What a breaker does off the hot path: asks the fleet, is sent the answers, returns."""

PULSE_SECONDS = 0.25
"""An active process asks so often."""
FAILURE_SECONDS = 0.02
"""A failure it tells at once, but not more often than this."""
STALE_SECONDS = 1.0
"""What is older than this admits nothing: ask first."""
WAIT_SECONDS = 0.1
"""How long a call waits for another one's pulse when what it knows is stale."""


CLOCK_SECONDS = 60.0
"""What is known of the fleet's time is asked for again after so long."""
DRIFT = 0.001
"""So much may two clocks part in a second, while one of them is slewed."""


class Member(Protocol):
    """Somebody on whose behalf a pulse goes out."""

    name: str

    def evidence(self, now: float) -> Evidence | None:
        """Return what was seen since the last pulse, and forget it."""
        ...

    def adopt(self, kept: Kept | None, until: float) -> None:
        """Learn the circuit; calls may be let through until *until*, monotonic."""
        ...

    def judge(self, window: Window) -> Steps[None]:
        """Decide on what the fleet has seen."""
        ...

    def restart(self) -> None:
        """Forget what a process before the fork had seen."""
        ...


class Watcher(Protocol):
    """Somebody who wants to know the state of the features."""

    @property
    def version(self) -> int:
        """Which state is known."""
        ...

    def receive(self, flags: bytes | None) -> None:
        """Take what the store keeps; None: the version that is known, empty: nothing."""
        ...

    def restart(self) -> None:
        """Go on in a forked child."""
        ...


class Pulse:
    """Carries evidence up and decisions down, for all members in one exchange.

    Sent by calls themselves: on the first one after `PULSE_SECONDS`, and at once after a failure.
    There is no thread and no timer. Safe across fork, with threads, gevent and event loops.

    When the store is down the process decides alone (`scope` is `local`), on what it sees itself
    from then on and what was agreed before, until the store answers again.

    Attributes:
        due: When the next call must send a pulse, in monotonic seconds.
        scope: `fleet` or `local`.
        sent: Pulses sent by this process.
    """

    def __init__(self, fleet: StoreFleet | None, *, clock: Clock | None = None) -> None:
        """Meet the others in *fleet*; None: there are no others."""
        self._fleet = fleet
        self._clock = clock or SystemClock()
        self._alone = MemoryFleet(clock=self._clock)
        self._members: dict[str, Member] = {}
        self._watcher: Watcher | None = None
        self._circuits: dict[str, Kept] = {}
        # Of this host, until the store tells better: jobs and tokens carry times between hosts.
        self._offset = self._clock.now() - self._clock.monotonic()
        self._doubt = float("inf")
        self._alone.adopt({}, self._offset)
        self._timed = float("-inf")
        self.scope = "local" if fleet is None else "fleet"
        self._begin()
        this = weakref.ref(self)
        os.register_at_fork(after_in_child=lambda: _restart(this))

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._process = f"{platform.node()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        self.due = self._last = self._told = self._began = float("-inf")
        self.sent = 0
        self._hastened = False
        self._sender = 0
        self._beside: asyncio.Task[None] | None = None

    def restart(self) -> None:
        """Begin again in a forked child: with own evidence, lock and name."""
        self._begin()
        self._alone.restart()
        for member in self._members.values():
            member.restart()
        if self._watcher is not None:
            self._watcher.restart()

    def watch(self, watcher: Watcher) -> None:
        """Let *watcher* hear of the state of the features from now on."""
        self._watcher = watcher
        self.due = float("-inf")

    def join(self, member: Member) -> None:
        """Pulse for *member*, too, from now on.

        Raises:
            ConfigurationError: It has the name of another one.
        """
        if member.name in self._members:
            msg = f"there is a breaker {member.name!r} on this pulse already; use that one"
            raise ConfigurationError(msg)
        self._members[member.name] = member
        self.due = float("-inf")

    def fleet_time(self, monotonic: float) -> float:
        """Return the store's time at *monotonic*; no host's clock has a say in it."""
        return monotonic + self._offset

    def time(self, *, older: float = CLOCK_SECONDS) -> float:
        """Return fleet time, which no host's clock has a say in; it may go back a little.

        Asks the store, if what is known was asked for more than *older* seconds ago. Without a
        store it is this host's time.
        """
        now = self._clock.monotonic()
        if now - self._timed > older:
            if self._timed > 0:
                self._timed = now  # others go on with what is known
            self.refresh()
            now = self._clock.monotonic()
        return self.fleet_time(now)

    def hasten(self, now: float) -> bool:
        """Note that something urgent waits; tell whether a pulse may go out at once."""
        soonest = self._told + FAILURE_SECONDS
        self._hastened = True
        self.due = min(self.due, max(now, soonest))
        return now >= soonest

    def ask(self, question: Question, *, alone: bool = True) -> Any:  # noqa: ANN401 - by question
        """Ask the fleet, or this process alone if the store is down.

        Raises:
            StoreUnavailableError: The store is down, and this process shall not decide *alone*.
        """
        if self._fleet is not None:
            try:
                answer = self._fleet.ask(question)
            except StoreUnavailableError:
                self._go_alone()
                if not alone:
                    raise
            else:
                self._heard(question, answer)
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
                self._heard(question, answer)
                return answer
        return self._alone.ask(question)

    def _heard(self, question: Question, answer: object) -> None:
        self.scope = "fleet"
        if answer and isinstance(question, Swap):
            self._circuits[question.name] = question.new

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
        """Send a pulse unless another thread just does; wait for that one if all is stale."""
        stale, turn = now - self._last > STALE_SECONDS, self._turn(now)
        if stale and turn.locked() and self._sender == threading.get_ident():
            self.refresh(patience=0.0)  # a coroutine of this very thread has the turn
        elif turn.acquire(blocking=stale, timeout=WAIT_SECONDS if stale else -1):
            try:
                if self.due <= now:
                    self.run(self._steps(now))
            finally:
                turn.release()

    def freshen(self, now: float) -> None:
        """Do the same for a plain function that may run in an event loop.

        There the pulse is sent beside it, and blocks it only if all that is known is stale.
        """
        loop = asyncio._get_running_loop()  # noqa: SLF001 - the public one raises where none runs
        if loop is None:
            self.beat(now)
        elif now - self._last > STALE_SECONDS:
            self.refresh(patience=0.0)  # a coroutine of this very loop may have the turn
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
        """Send a pulse now and return fleet time; wait for at most *patience* for another one's."""
        now = self._clock.monotonic()
        # If it cannot be had, a coroutine of this very thread may hold it, which waits for us.
        turn = self._turn(now)
        held = turn.acquire(timeout=patience)
        try:
            self.run(self._steps(now))
        finally:
            if held:
                turn.release()
        return self.fleet_time(self._clock.monotonic())

    def _turn(self, now: float) -> threading.Lock:
        """Return the lock that a pulse is sent under; a new one if a stopped event loop has it."""
        if self._lock.locked() and now - self._began > STALE_SECONDS:
            self._lock, self._began = threading.Lock(), now
        return self._lock

    def _steps(self, now: float) -> Steps[None]:
        self._sender, self._hastened = threading.get_ident(), False
        members = list(self._members.values())
        seen = [one for member in members if (one := member.evidence(now)) is not None]
        # A concurrent call need not ask as well: it goes on with what is known, or waits for this.
        self.due = now if now - self._last > STALE_SECONDS else now + PULSE_SECONDS
        began = self._began = self._clock.monotonic()
        watcher = self._watcher
        known = None if watcher is None else watcher.version
        reply: Reply = yield Exchange(process=self._process, evidence=seen, flags=known)
        ended = self._clock.monotonic()
        self.sent += 1
        if self.scope == "fleet":
            self._set_clock(reply.now, began, ended)
        self._last = self._timed = ended
        if any(one.failed for one in seen):
            self._told = ended
        # Hastened by a failure that this exchange does not tell of.
        self.due = ended + (FAILURE_SECONDS if self._hastened else PULSE_SECONDS)
        self._circuits = dict(reply.circuits)
        if watcher is not None and self.scope == "fleet" and watcher.version == known:
            watcher.receive(reply.flags)  # else it learned more while this reply was on its way
        for member in members:
            member.adopt(reply.circuits.get(member.name), self.due)
        for member in members:
            window = reply.windows.get(member.name)
            if window is not None:
                yield from member.judge(window)

    def _set_clock(self, fleet_now: float, began: float, ended: float) -> None:
        """Learn the fleet's time from an exchange, unless a quicker one has told it better.

        An exchange tells it to half of what it took. What is known is in doubt by as much, and by
        more as time goes by; what lies beyond both is a clock that was set. After the clock filter
        of NTP (RFC 5905, section 10).
        """
        half, offset = (ended - began) / 2, fleet_now - (began + ended) / 2
        doubt = self._doubt + DRIFT * ended
        if half <= doubt or abs(offset - self._offset) > half + doubt:
            self._offset, self._doubt = offset, half - DRIFT * ended

    def _go_alone(self) -> None:
        if self.scope == "fleet":
            self.scope = "local"
            self._alone.adopt(self._circuits, self._offset)


def _restart(this: "weakref.ref[Pulse]") -> None:
    pulse = this()
    if pulse is not None:
        pulse.restart()
