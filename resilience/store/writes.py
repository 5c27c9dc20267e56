"""Recent writes of sessions, in the store, where every process sees them."""

import hashlib
from importlib.resources import files
from typing import Any, Final

import redis.asyncio

from resilience.store.connection import Store

KEYS_MAX: Final = 1_000
"""So many recent writes are kept for each session; the oldest go first."""
BYTES_MAX: Final = 1_000_000
"""All of them together are at most so long: they are fetched in one answer."""


class WriteStore:
    """Numbers and records of writes to one source; see writes.lua for both. One exchange per step.

    Sessions are told apart by a digest of their key: whoever reads the store learns none.

    When the store is down every method raises `StoreUnavailableError`.
    """

    def __init__(self, store: Store, source: str, *, life_us: int) -> None:
        """Keep writes to *source* in *store*, each for *life_us* microseconds."""
        self._store = store
        self._source = source
        self._limits = life_us, KEYS_MAX, BYTES_MAX
        self._code = files("resilience.store").joinpath("writes.lua").read_text()
        self._script = store.client.register_script(self._code)

    def run(self, session: str, known: int, *operation: bytes | int | str) -> list[Any]:
        """Run one operation of writes.lua for a *session* that knows of number *known*."""
        keys, values = self._arguments(session, known, operation)
        answer: list[Any] = self._store.run(lambda _: self._script(keys=keys, args=values))
        return answer

    async def run_async(self, session: str, known: int, *operation: bytes | int | str) -> list[Any]:
        """Do the same as `run` without blocking the event loop."""
        keys, values = self._arguments(session, known, operation)

        async def exchange(client: redis.asyncio.Redis) -> Any:  # noqa: ANN401 - by operation
            return await client.register_script(self._code)(keys=keys, args=values)

        answer: list[Any] = await self._store.run_async(exchange)
        return answer

    def _arguments(
        self, session: str, known: int, operation: tuple[bytes | int | str, ...]
    ) -> tuple[list[str], list[bytes | int | str]]:
        digest = hashlib.sha256(session.encode(errors="surrogatepass")).hexdigest()[:32]
        return [self._store.key("writes", self._source, digest)], [*self._limits, known, *operation]
