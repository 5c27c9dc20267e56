"""What stands in for the store of an app that has none."""

from collections.abc import Awaitable, Callable
from typing import NoReturn

import redis
import redis.asyncio

from resilience.errors import StoreUnavailableError
from resilience.store.connection import Store


class NoStore(Store):
    """A store that is never there: nothing is kept, and whoever asks is told why.

    Attributes:
        why: What is to be set for there to be one.
    """

    def __init__(self, why: str) -> None:
        """Refuse every exchange and say *why*."""
        self._namespace = ""
        self.why = why

    def run(self, exchange: Callable[[redis.Redis], object]) -> NoReturn:  # noqa: ARG002 - as Store
        """Refuse.

        Raises:
            StoreUnavailableError: Always.
        """
        raise StoreUnavailableError(self.why)

    async def run_async(
        self,
        exchange: Callable[[redis.asyncio.Redis], Awaitable[object]],  # noqa: ARG002 - as Store
    ) -> NoReturn:
        """Refuse.

        Raises:
            StoreUnavailableError: Always.
        """
        raise StoreUnavailableError(self.why)
