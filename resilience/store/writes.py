"""Recent writes of sessions, in the store, where every process sees them."""

import hashlib
from collections.abc import Callable
from importlib.resources import files
from typing import Any, Final

from resilience.store.connection import Store

KEYS_MAX: Final = 1_000
"""So many recent writes are kept for each session; when there are more, all but the last go."""
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

    def key(self, session: str) -> str:
        """Return under which key the store keeps writes of *session*."""
        digest = hashlib.sha256(session.encode(errors="surrogatepass")).hexdigest()[:32]
        return self._store.key("writes", self._source, digest)

    def run(self, session: str, known: int, *step: bytes) -> list[Any]:
        """Take a step of writes.lua for a *session* that knows of number *known*."""
        answer: list[Any] = self._store.run(self._question(session, known, *step))
        return answer

    async def run_async(self, session: str, known: int, *step: bytes) -> list[Any]:
        """Do the same as `run` without blocking the event loop."""
        answer: list[Any] = await self._store.run_async(self._question(session, known, *step))
        return answer

    def _question(self, session: str, known: int, *step: bytes) -> Callable[[Any], Any]:
        keys, values = [self.key(session)], [*self._limits, known, *step]
        return lambda client: client.register_script(self._code)(keys=keys, args=values)
