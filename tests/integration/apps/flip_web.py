"""A web process of the app in flip.py, which measures how late its event loop is."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from fastapi import FastAPI

from resilience import degradable
from tests.integration.apps.flip import FEATURE, LOOK_SECONDS, enabled, monotonic


async def _measure(lag: list[float]) -> None:
    """Keep the longest time for which the event loop ran nothing else."""
    while True:
        began = monotonic()
        await asyncio.sleep(LOOK_SECONDS)
        lag[0] = max(lag[0], monotonic() - began - LOOK_SECONDS)


@asynccontextmanager
async def _life(front: FastAPI) -> AsyncIterator[None]:
    front.state.lag = [0.0]
    measuring = asyncio.create_task(_measure(front.state.lag))
    yield
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


@web.get("/lag")
async def lag() -> float:
    """Return the longest lag of the loop since this was last asked for."""
    (longest,), web.state.lag[:] = tuple(web.state.lag), [0.0]
    return float(longest)
