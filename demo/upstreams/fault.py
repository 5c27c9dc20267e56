"""The fault of a service: what it is told to do to its calls, and how often it did."""

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine
from enum import StrEnum
from typing import Any, Final, TypedDict

from pydantic import BaseModel, ConfigDict, Field

DEFAULT_LATENCY_SECONDS: Final = 1.5
MAX_LATENCY_SECONDS: Final = 300.0


class FaultMode(StrEnum):
    """What happens to a call."""

    OK = "ok"
    FAIL = "fail"
    SLOW = "slow"
    HANG = "hang"


class Fault(BaseModel):
    """What a service does to its calls; as sent to `PUT /fault`.

    Attributes:
        mode: ok answers, fail refuses at once, slow answers late, hang does not answer.
        latency_seconds: How late slow is, above 0 and at most 300.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    mode: FaultMode = FaultMode.OK
    latency_seconds: float = Field(default=DEFAULT_LATENCY_SECONDS, gt=0, le=MAX_LATENCY_SECONDS)


class FaultStats(TypedDict):
    """What `GET /stats` answers; *waiting* calls are being held right now."""

    calls: int
    by_mode: dict[str, int]
    waiting: int


async def _never() -> None:
    await asyncio.Event().wait()


class FaultSwitch:
    """The fault of one service; every call asks it for admission."""

    def __init__(self) -> None:
        """Start without a fault."""
        self._fault = Fault()
        self._replaced = asyncio.Event()
        self._calls: Counter[FaultMode] = Counter()
        self._waiting = 0

    @property
    def fault(self) -> Fault:
        """What happens to the next call."""
        return self._fault

    @property
    def stats(self) -> FaultStats:
        """What happened to the calls so far, each counted by the mode it met."""
        by_mode = {mode.value: self._calls[mode] for mode in FaultMode}
        return FaultStats(calls=self._calls.total(), by_mode=by_mode, waiting=self._waiting)

    def put(self, fault: Fault) -> None:
        """Do this from now on, and let go of every call that the former fault holds."""
        self._fault = fault
        self._replaced.set()
        self._replaced = asyncio.Event()

    def lift(self) -> None:
        """Return to answering."""
        self.put(Fault())

    async def admit(self, gone: Callable[[], Coroutine[Any, Any, object]] = _never) -> bool:
        """Hold one call for as long as the fault says.

        A slow call is held for the latency, a hanging one until the fault is replaced; both
        end when it is.

        Args:
            gone: Returns once the caller of a hanging call has hung up. A protocol whose
                calls are cancelled then does not need it.

        Returns:
            Whether to answer the call; if not, it is to fail.
        """
        fault, replaced = self._fault, self._replaced
        self._calls[fault.mode] += 1
        self._waiting += 1
        try:
            match fault.mode:
                case FaultMode.SLOW:
                    await _first_of(replaced.wait(), asyncio.sleep(fault.latency_seconds))
                case FaultMode.HANG:
                    await _first_of(replaced.wait(), gone())
                case FaultMode.OK | FaultMode.FAIL:
                    pass
        finally:
            self._waiting -= 1
        return fault.mode in {FaultMode.OK, FaultMode.SLOW}


async def _first_of(*coroutines: Coroutine[Any, Any, object]) -> None:
    """Return when one has ended; the others are cancelled, also when this is."""
    tasks = [asyncio.create_task(coroutine) for coroutine in coroutines]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
