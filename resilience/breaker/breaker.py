"""The circuit breaker of one dependency."""

import functools
import inspect
from collections.abc import Awaitable, Callable
from types import CoroutineType, TracebackType
from typing import Any, ParamSpec, Self, TypeVar

from resilience.breaker import blocks
from resilience.breaker.classify import FAILED
from resilience.breaker.keeper import NO_VALUE, Pass
from resilience.breaker.orders import Ordered
from resilience.breaker.state import Circuit, State, state_at
from resilience.errors import (
    CircuitOpenError,
    ConfigurationError,
    as_bug,
    mark_wrong_call,
)

P = ParamSpec("P")
R = TypeVar("R")


class Breaker(Ordered):
    """Refuses calls of a dependency that fails, for the whole fleet at once.

    A closed circuit costs a call no round trip: it is counted here and told with the next pulse.
    Safe with threads, gevent, event loops and across fork. Results of calls that began before a
    change count for nothing.

    When the store is down the process decides alone, by the same rules.

    Attributes:
        name: The dependency.
        policy: When it opens and closes.
    """

    def call(self, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Return `function(*args, **kwargs)`.

        Raises:
            CircuitOpenError: It was not called.
            TypeError: It returned a coroutine, which is not awaited here; use `acall`.
        """
        began = self._monotonic()
        gate, admitted = self._gate, None
        if began > gate.until:
            admitted = self._enter(began)
        try:
            value = function(*args, **kwargs)
        except BaseException as error:
            mark_wrong_call(error, function, args, kwargs)
            self._leave(admitted or Pass(gate, began), error)
            raise
        if admitted is not None or self._judges_values or type(value) is CoroutineType:
            self._leave(admitted or Pass(gate, began), None, value)
            return value
        if self._slow_seconds is not None and self._monotonic() - began > self._slow_seconds:
            gate.slow()
        gate.good()
        return value

    async def acall(
        self, function: Callable[P, Awaitable[R]], /, *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """Return `await function(*args, **kwargs)`; never blocks the event loop.

        Raises:
            CircuitOpenError: It was not called.
        """
        began = self._monotonic()
        gate, admitted = self._gate, None
        if began > gate.until:
            admitted = await self._enter_async(began)
        try:
            value = await function(*args, **kwargs)
        except BaseException as error:
            mark_wrong_call(error, function, args, kwargs)
            await self._leave_async(admitted or Pass(gate, began), error)
            raise
        if admitted is not None or self._judges_values:
            await self._leave_async(admitted or Pass(gate, began), None, value)
            return value
        if self._slow_seconds is not None and self._monotonic() - began > self._slow_seconds:
            gate.slow()
        gate.good()
        return value

    def refusal(self) -> CircuitOpenError | None:
        """Return why a call would be refused now, without raising it; None: try.

        Says nothing of a half-open circuit, whose permits only a call can take.
        """
        now = self._monotonic()
        if now <= self._gate.until:
            return None
        if now >= self._pulse.due:
            self._pulse.beat(now)
            now = self._monotonic()
        return self.refused(now)

    async def refusal_async(self) -> CircuitOpenError | None:
        """Do the same as `refusal` without blocking the event loop."""
        now = self._monotonic()
        if now <= self._gate.until:
            return None
        if now >= self._pulse.due:
            await self._pulse.beat_async(now)
            now = self._monotonic()
        return self.refused(now)

    def record_failure(self, error: BaseException) -> None:
        """Count a call that could not speak for itself, as its process was killed.

        Nobody knows what the dependency said: it is a failure, unless `ignore` names *error*.
        """
        if self._classifier.ignores(error):
            return
        # This process may make no calls: nothing told it of changes, and nothing else will send it.
        self._pulse.refresh()
        self._note_failure(self._monotonic(), error)
        self._gate.fail(self._monotonic())
        self._pulse.refresh()

    @property
    def state(self) -> State:
        """What the circuit does with a call now; asks the fleet if it has not lately."""
        now = self._monotonic()
        if now >= self._pulse.due:
            self._pulse.beat(now)
        return state_at(self._circuit, self._pulse.fleet_time(self._monotonic()))

    @property
    def known_state(self) -> State:
        """What the circuit does with a call now as far as this process has heard; asks nobody."""
        return state_at(self._circuit, self._pulse.fleet_time(self._monotonic()))

    def blames(self, error: BaseException) -> bool:
        """Tell whether a call that ends in *error* counts as a failure of the dependency."""
        return self._classifier.kind(error) == FAILED

    @property
    def seconds_left(self) -> float | None:
        """Seconds until an order or the open time ends; None: there is neither."""
        now = self._pulse.fleet_time(self._monotonic())
        ends = self._circuit.manual_until if self._circuit.manual else self._circuit.until
        return ends - now if ends > now else None

    @property
    def circuit(self) -> Circuit:
        """What the fleet had agreed on when this process last asked."""
        return self._circuit

    def _enter(self, now: float) -> Pass:
        if now >= self._pulse.due:
            self._pulse.beat(now)
            now = self._monotonic()
        if (refused := self.refused(now)) is not None:
            raise refused
        return self._pulse.run(self.admit())

    async def _enter_async(self, now: float) -> Pass:
        if now >= self._pulse.due:
            await self._pulse.beat_async(now)
            now = self._monotonic()
        if (refused := self.refused(now)) is not None:
            raise refused
        return await self._pulse.run_async(self.admit())

    def _count_good(self, admitted: Pass) -> None:
        """Count a block that ended well, and has no value to judge."""
        slow_seconds = self._slow_seconds
        if slow_seconds is not None and self._monotonic() - admitted.began > slow_seconds:
            admitted.gate.slow()
        admitted.gate.good()

    def _leave(self, admitted: Pass, error: BaseException | None, value: object = NO_VALUE) -> None:
        if self._pulse.run(self.settle(admitted, error, value)):
            self._pulse.beat(self._monotonic())
        if error is None and isinstance(value, CoroutineType):
            value.close()
            msg = f"breaker {self.name}: a coroutine is not awaited by call(); use acall()"
            raise as_bug(TypeError(msg))

    async def _leave_async(
        self, admitted: Pass, error: BaseException | None, value: object = NO_VALUE
    ) -> None:
        if await self._pulse.run_async(self.settle(admitted, error, value)):
            await self._pulse.beat_async(self._monotonic())

    def __enter__(self) -> Self:
        """Admit a block, or raise `CircuitOpenError` without running it."""
        now, gate = self._monotonic(), self._gate
        blocks.push(self, Pass(gate, now) if now <= gate.until else self._enter(now))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Count how the block ended."""
        admitted = blocks.pop(self) or Pass(self._gate, self._monotonic())
        if error is None and not admitted.probe:
            self._count_good(admitted)
        else:
            self._leave(admitted, error)

    async def __aenter__(self) -> Self:
        """Admit a block, or raise `CircuitOpenError` without running it."""
        now, gate = self._monotonic(), self._gate
        blocks.push(self, Pass(gate, now) if now <= gate.until else await self._enter_async(now))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Count how the block ended."""
        admitted = blocks.pop(self) or Pass(self._gate, self._monotonic())
        if error is None and not admitted.probe:
            self._count_good(admitted)
        else:
            await self._leave_async(admitted, error)

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """Return *function* guarded, with its own signature; coroutine functions stay such.

        Raises:
            ConfigurationError: It is a class, a generator or not to be called: guarding the call
                would not guard the work.
        """
        ways = function, getattr(function, "__call__", None)  # noqa: B004 - an object's own
        if any(inspect.isgeneratorfunction(way) or inspect.isasyncgenfunction(way) for way in ways):
            msg = (
                f"breaker {self.name} cannot guard the generator {function!r}: its work is done "
                "after the call; guard the block with `with breaker:`"
            )
            raise ConfigurationError(msg)
        if inspect.isclass(function) or not callable(function):
            msg = f"breaker {self.name} guards functions, not {function!r}"
            raise ConfigurationError(msg)
        if any(map(inspect.iscoroutinefunction, ways)):
            return self._guarded_async(function)
        monotonic, slow_seconds = self._monotonic, self._slow_seconds

        # As `call`, written out once more: a second function call would cost a third of it all.
        @functools.wraps(function)
        def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
            began = monotonic()
            gate = self._gate
            if began > gate.until or self._judges_values:
                # Raised here: each further frame would add a fifth to what a refusal costs.
                if (refused := self.refusal()) is not None:
                    raise refused
                return self.call(function, *args, **kwargs)
            try:
                value = function(*args, **kwargs)
            except BaseException as error:
                mark_wrong_call(error, function, args, kwargs)
                self._leave(Pass(gate, began), error)
                raise
            if type(value) is CoroutineType:
                self._leave(Pass(gate, began), None, value)
            if slow_seconds is not None and monotonic() - began > slow_seconds:
                gate.slow()
            gate.good()
            return value

        return guarded

    def _guarded_async(self, function: Callable[P, Any]) -> Callable[P, Any]:
        monotonic, slow_seconds = self._monotonic, self._slow_seconds

        @functools.wraps(function)
        async def guarded(*args: P.args, **kwargs: P.kwargs) -> object:
            began = monotonic()
            gate = self._gate
            if began > gate.until or self._judges_values:
                return await self.acall(function, *args, **kwargs)
            try:
                value = await function(*args, **kwargs)
            except BaseException as error:
                mark_wrong_call(error, function, args, kwargs)
                await self._leave_async(Pass(gate, began), error)
                raise
            if slow_seconds is not None and monotonic() - began > slow_seconds:
                gate.slow()
            gate.good()
            return value

        return guarded
