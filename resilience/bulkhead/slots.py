"""A cap on the calls of one dependency that run at once in the whole fleet."""

import asyncio
import functools
import os
import threading
from collections.abc import Awaitable, Callable, Generator, Iterable
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from resilience.bulkhead.lease import Lease, Line
from resilience.bulkhead.renewal import Renewal
from resilience.clock import Clock, SystemClock
from resilience.errors import BulkheadFullError, StoreUnavailableError
from resilience.events import BulkheadFull, Listener, announce, log_event
from resilience.store.slots import ROUND_SECONDS, SlotStore

spared: ContextVar[int] = ContextVar("resilience_spared_slots", default=0)
"""Slots that a call leaves to others. One that spares any does not wait, and its refusal is not
announced: nobody needs its answer."""
RETRY_AFTER_SECONDS = 1.0
"""`retry_after` of a refusal in the process's own line, where no end of a lease is known."""


@dataclass(frozen=True, slots=True)
class _Step:
    """What a call that wants a slot must do next.

    Attributes:
        kind: `stand` waits in this process's line, `take` asks the store for a slot, `doze` waits
            in the fleet's line.
        seconds: Longest wait.
    """

    kind: str
    seconds: float = 0.0


class Slots:
    """Lets at most *slots* calls run at once, first come, first served.

    A call waits for its turn in its process, then in the fleet. Without the store the process's own
    line is the cap. A call gives its slot back however it ends; a slot of a killed process is free
    again within `LEASE_SECONDS`.
    """

    def __init__(
        self,
        dependency: str,
        slots: int,
        *,
        store: SlotStore | None = None,
        renewal: Renewal | None = None,
        listeners: Iterable[Listener] = (log_event,),
        clock: Clock | None = None,
    ) -> None:
        """Cap calls of *dependency* at *slots*.

        Args:
            dependency: The dependency that is called.
            slots: How many calls may run at once, at least 1.
            store: Where the fleet counts; None: each process counts for itself.
            renewal: Renews the leases of this process; by default a new one for these slots.
            listeners: Called with an event for each refusal.
            clock: Where time comes from.
        """
        self.dependency = dependency
        self.slots = slots
        self._store = store
        if renewal is None and store is not None:
            renewal = Renewal(store, listeners=listeners)
        self._renewal = renewal
        self._listeners = listeners
        self._monotonic = (clock or SystemClock()).monotonic
        self._line = Line(slots)

    def call(
        self,
        seconds: float,
        function: Callable[..., Any],
        /,
        *args: Any,  # noqa: ANN401 - handed on
    ) -> Any:  # noqa: ANN401 - what the function returns
        """Return `function(*args)`, called once there is a slot.

        Raises:
            BulkheadFullError: There was none within *seconds*.
        """
        bell = threading.Lock()
        bell.acquire()
        lease = Lease(self.dependency, self.slots, functools.partial(_ring, bell))
        try:
            self._enter(lease, bell, seconds)
            return function(*args)
        finally:
            # First: if a time limit cuts what follows, the renewal gives the slot back.
            lease.done = True
            self._leave(lease)

    async def acall(
        self,
        seconds: float,
        function: Callable[..., Awaitable[Any]],
        /,
        *args: Any,  # noqa: ANN401 - handed on
    ) -> Any:  # noqa: ANN401 - what the function returns
        """Do the same as `call` for a coroutine function, without blocking the event loop."""
        bell = asyncio.Event()
        loop = asyncio.get_running_loop()
        lease = Lease(self.dependency, self.slots, functools.partial(_ring_async, loop, bell))
        may_wait = False
        try:
            await self._enter_async(lease, bell, seconds)
            value = await function(*args)
            may_wait = True
        except Exception:
            may_wait = True
            raise
        else:
            return value
        finally:
            lease.done = True
            if may_wait:
                await self._leave_async(lease)
            else:  # cancelled or closed: a coroutine must not await any more
                self._leave_later(lease)

    def _steps(self, lease: Lease, seconds: float) -> Generator[_Step, Any, None]:
        began = self._monotonic()
        until = began if spared.get() else began + seconds
        self._line.join(lease)
        while not self._line.serves(lease, sparing=spared.get()):
            left = until - self._monotonic()
            if left <= 0:
                raise self._full(began, RETRY_AFTER_SECONDS)
            yield _Step("stand", min(left, ROUND_SECONDS))
        if self._store is not None and self._renewal is not None:
            # Before the store is asked, as it may grant a slot and its answer be lost.
            lease.asked = True
            self._renewal.watch(lease)
            # No `with suppress`: its exit is Python code, and a time limit that cuts it while the
            # generator is finalised would be lost.
            try:
                while (free_in := (yield _Step("take"))) is not None:
                    left = until - self._monotonic()
                    if left <= 0:
                        raise self._full(began, free_in)
                    yield _Step("doze", min(left, free_in, ROUND_SECONDS))
                lease.counted = True
            except StoreUnavailableError:
                pass  # then this process's line is the cap
        lease.running = True

    def _enter(self, lease: Lease, bell: threading.Lock, seconds: float) -> None:
        steps = self._steps(lease, seconds)
        with suppress(StopIteration):
            step = next(steps)
            while True:
                try:
                    answer = self._do(step, lease, bell)
                except StoreUnavailableError as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(answer)

    async def _enter_async(self, lease: Lease, bell: asyncio.Event, seconds: float) -> None:
        steps = self._steps(lease, seconds)
        with suppress(StopIteration):
            step = next(steps)
            while True:
                try:
                    answer = await self._do_async(step, lease, bell)
                except StoreUnavailableError as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(answer)

    def _do(self, step: _Step, lease: Lease, bell: threading.Lock) -> float | None:
        store = self._store
        if store is None or step.kind == "stand":
            bell.acquire(timeout=step.seconds)
        elif step.kind == "take":
            return store.take(self.dependency, lease.owner, self.slots - spared.get())
        else:
            store.doze(self.dependency, lease.owner, step.seconds)
        return None

    async def _do_async(self, step: _Step, lease: Lease, bell: asyncio.Event) -> float | None:
        store = self._store
        if store is None or step.kind == "stand":
            with suppress(TimeoutError):
                async with asyncio.timeout(step.seconds):
                    await bell.wait()
            bell.clear()
        elif step.kind == "take":
            limit = self.slots - spared.get()
            return await store.take_async(self.dependency, lease.owner, limit)
        else:
            await store.doze_async(self.dependency, lease.owner, step.seconds)
        return None

    def _leave(self, lease: Lease) -> None:
        if lease.pid != os.getpid():  # a child that was forked by the call
            return
        if self._store is not None and lease.asked:
            with suppress(StoreUnavailableError):
                self._left(lease, self._store.leave(self.dependency, lease.owner, self.slots))
        self._line.leave(lease)

    async def _leave_async(self, lease: Lease) -> None:
        try:
            if self._store is not None and lease.asked:
                with suppress(StoreUnavailableError):
                    held = await self._store.leave_async(self.dependency, lease.owner, self.slots)
                    self._left(lease, held)
        finally:
            self._line.leave(lease)

    def _leave_later(self, lease: Lease) -> None:
        if self._renewal is not None and lease.asked:
            self._renewal.hasten(lease)
        self._line.leave(lease)

    def _left(self, lease: Lease, held: bool) -> None:  # noqa: FBT001 - what the store said
        if self._renewal is None:
            return
        # If it was no longer watched, a beat of the renewal has already given the slot back.
        if self._renewal.forget(lease) and lease.counted and not held:
            self._renewal.lost(lease, retaken=False)

    def _full(self, began: float, retry_after: float) -> BulkheadFullError:
        waited = self._monotonic() - began
        if not spared.get():
            event = BulkheadFull(dependency=self.dependency, slots=self.slots, waited=waited)
            announce(event, self._listeners)
        return BulkheadFullError(self.dependency, retry_after)


def _ring(bell: threading.Lock) -> None:
    with suppress(RuntimeError):  # it rings already
        bell.release()


def _ring_async(loop: asyncio.AbstractEventLoop, bell: asyncio.Event) -> None:
    with suppress(RuntimeError):  # its event loop is closed, so that nobody waits
        loop.call_soon_threadsafe(bell.set)
