"""Puts faults between a pipeline and what it calls."""

import asyncio
import functools
import random
import time
import uuid
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

from resilience.events import FaultInjected, Listener, announce
from resilience.faults.fault import SECONDS_MAX, Fault
from resilience.outcome import Outcome

WORKER: Final = uuid.uuid4().hex
"""Tells this worker from others; the processes of its pool, which are forked, inherit it."""
LOOK_SECONDS = 0.1
"""How often a hanging call looks whether its fault has ended."""
DICE_MAX = 256
"""So many faults have draws of their own; the draws that began first are forgotten first."""
_MARK: Final = "_resilience_fault"


def fault_of(error: BaseException) -> str | None:
    """Return the name of the fault that raised *error*, None if no fault did."""
    return getattr(error, _MARK, None)


class Injector:
    """Injects what is ordered into the calls of the pipelines of one app.

    Safe with threads, gevent and event loops. A forked process goes on with its parent's draws.
    """

    def __init__(
        self,
        active: Callable[[str], Mapping[str, Fault]],
        listeners: Iterable[Listener],
        *,
        worker: str = WORKER,
    ) -> None:
        """Inject what *active* returns for a dependency: its faults, by name.

        Args:
            active: Asked for each call, and again while a call hangs.
            listeners: Who hears of each injection.
            worker: Decides which faults for a share of the workers are for this one.
        """
        self._active = active
        self._listeners = listeners
        self._worker = worker
        self._dice: dict[str, random.Random] = {}

    def wrap(self, pipeline: Any) -> None:  # noqa: ANN401 - a `Pipeline`, which stands above
        """Inject into calls of *pipeline* from now on; one that is not wrapped costs nothing."""
        called = pipeline.dependency.name, pipeline.name
        pipeline.call = functools.partial(self._call, pipeline.call, *called)
        pipeline.call_async = functools.partial(self._call_async, pipeline.call_async, *called)

    def _call(
        self,
        pipeline: Callable[..., Any],
        dependency: str,
        name: str,
        function: Callable[..., Any],
        /,
        *args: Any,  # noqa: ANN401 - handed on
        **kwargs: Any,  # noqa: ANN401 - handed on
    ) -> Any:  # noqa: ANN401 - what the pipeline returns
        injection = _Injection(self, dependency, name)

        @functools.wraps(function)
        def faulty(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as the function's
            for seconds in injection.before():
                time.sleep(seconds)  # noqa: TID251 - that is the fault
            value = function(*args, **kwargs)
            injection.after()
            return value

        return injection.mark(pipeline(faulty, *args, **kwargs))

    async def _call_async(
        self,
        pipeline: Callable[..., Awaitable[Any]],
        dependency: str,
        name: str,
        function: Callable[..., Awaitable[Any]],
        /,
        *args: Any,  # noqa: ANN401 - handed on
        **kwargs: Any,  # noqa: ANN401 - handed on
    ) -> Any:  # noqa: ANN401 - what the pipeline returns
        injection = _Injection(self, dependency, name)

        @functools.wraps(function)
        async def faulty(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as the function's
            for seconds in injection.before():
                await asyncio.sleep(seconds)
            value = await function(*args, **kwargs)
            injection.after()
            return value

        return injection.mark(await pipeline(faulty, *args, **kwargs))

    def active(self, dependency: str) -> Mapping[str, Fault]:
        """Return the faults of *dependency* that are for this worker, by name."""
        ordered = self._active(dependency)
        return {name: fault for name, fault in ordered.items() if fault.hits(self._worker)}

    def drawn(self, name: str, fault: Fault) -> float | None:
        """Return the seconds that *fault* delays this call; None if the call is spared."""
        dice = self._dice.get(name)
        if dice is None:
            dice = random.Random(fault.seed)  # noqa: S311 - no secret
            self._dice = dict([*self._dice.items(), (name, dice)][-DICE_MAX:])
        return fault.delay(dice) if dice.random() < fault.rate else None

    def announce(self, event: FaultInjected) -> None:
        """Tell the app's listeners of an injection."""
        announce(event, self._listeners)


class _Injection:
    """What the faults do to one call."""

    def __init__(self, injector: Injector, dependency: str, name: str) -> None:
        self._injector = injector
        self._dependency = dependency
        self._name = name
        self._injected: list[str] = []
        self._lost: tuple[str, Fault] | None = None

    def before(self) -> Iterator[float]:
        """Yield the seconds to wait before the call; raise what takes the place of the call."""
        for name, fault in self._injector.active(self._dependency).items():
            delay = self._injector.drawn(name, fault)
            if delay is None:
                continue
            self._injected.append(name)
            self._injector.announce(
                FaultInjected(
                    fault=name, kind=fault.kind, dependency=self._dependency, call=self._name
                )
            )
            if fault.kind == "latency":
                yield delay
            elif fault.kind == "execute-then-timeout":
                self._lost = name, fault
            else:
                if fault.kind == "hang":
                    yield from self._until_it_ends(name)
                raise _marked(fault, name)

    def _until_it_ends(self, name: str) -> Iterator[float]:
        for _ in range(int(SECONDS_MAX / LOOK_SECONDS)):
            if name not in self._injector.active(self._dependency):
                return
            yield LOOK_SECONDS

    def after(self) -> None:
        """Lose the answer of the call, if a fault says so."""
        if self._lost is not None:
            name, fault = self._lost
            raise _marked(fault, name)

    def mark(self, answer: object) -> object:
        """Return *answer* with the names of the faults, if it is an outcome that can say so."""
        if self._injected and isinstance(answer, Outcome):
            return replace(answer, fault=", ".join(dict.fromkeys(self._injected)))
        return answer


def _marked(fault: Fault, name: str) -> Exception:
    error = fault.exception(f"injected by the fault {name} ({fault.kind})")
    setattr(error, _MARK, name)
    return error
