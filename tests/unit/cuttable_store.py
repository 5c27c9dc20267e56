"""A store that a test takes away from one process."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

import redis
import redis.asyncio

from resilience.errors import StoreUnavailableError
from resilience.store import Store

T = TypeVar("T")


class CuttableStore(Store):
    """A process's way to the store, which a test cuts before the question or after the answer."""

    cut: str | None = None

    def run(self, exchange: Callable[[redis.Redis], T]) -> T:
        """Do as a store does."""
        answer = None if self.cut == "question" else super().run(exchange)
        if self.cut is not None or answer is None:
            msg = "cut"
            raise StoreUnavailableError(msg)
        return answer

    async def run_async(self, exchange: Callable[[redis.asyncio.Redis], Awaitable[T]]) -> T:
        """Do as a store does."""
        answer = None if self.cut == "question" else await super().run_async(exchange)
        if self.cut is not None or answer is None:
            msg = "cut"
            raise StoreUnavailableError(msg)
        return answer
