"""A web process of the app in flip.py, which measures how late its event loop is.

A thread beside the loop measures the same: for so long the machine kept the process waiting.
"""

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from fastapi import FastAPI

from resilience import degradable
from tests.integration.apps.flip import FEATURE, LOOK_SECONDS, enabled, monotonic


class Lags:
    """The longest lags since they were last asked for, in seconds."""

    def __init__(self) -> None:
        self.loop = self.thread = 0.0
        self.ended = threading.Event()

    async def measure(self) -> None:
        """Keep the longest time for which the event loop ran nothing else."""
        while True:
            began = monotonic()
            await asyncio.sleep(LOOK_SECONDS)
            self.loop = max(self.loop, monotonic() - began - LOOK_SECONDS)

    def measure_beside(self) -> None:
        """Keep the longest time for which the machine let a thread wait."""
        while not self.ended.is_set():
            began = monotonic()
            time.sleep(LOOK_SECONDS)  # noqa: TID251 - what is measured
            self.thread = max(self.thread, monotonic() - began - LOOK_SECONDS)


@asynccontextmanager
async def _life(front: FastAPI) -> AsyncIterator[None]:
    lags = front.state.lags = Lags()
    measuring = asyncio.create_task(lags.measure())
    threading.Thread(target=lags.measure_beside, daemon=True).start()
    yield
    lags.ended.set()
    measuring.cancel()
    with suppress(asyncio.CancelledError):
        await measuring


web = FastAPI(lifespan=_life)


async def _off() -> bool:
    return False


@degradable(FEATURE, otherwise=_off)
async def _on() -> bool:
    return True


@web.get("/plain")
async def plain() -> bool:
    """Evaluate in a coroutine."""
    return enabled()


@web.get("/degradable")
async def decorated() -> bool:
    """Call a coroutine function that does more while the feature is on."""
    return await _on()


@web.get("/lags")
async def lags() -> tuple[float, float]:
    """Return the longest lags of the loop and of the thread since this was last asked for."""
    found: Lags = web.state.lags
    longest = found.loop, found.thread
    found.loop = found.thread = 0.0
    return longest
