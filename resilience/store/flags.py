"""The state of the features, as one text in the store."""

from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from importlib.resources import files
from typing import Any

import redis

from resilience.store.connection import Store

KEY = "flags"
COUNTS_SECONDS = 86_400
"""What a trial has counted is kept for so long after the last call."""
COUNT_MAX = 1e15
"""No trial counts so far."""
OTHER_TYPE = b"?"
"""Stands for a key that holds no text: somebody else wrote it."""


class FlagStore:
    """Reads and changes that text; what it says is the business of `resilience.flags`.

    Attributes:
        key: Under which the store keeps it.
    """

    def __init__(self, store: Store) -> None:
        """Keep it in *store*; connects to nothing."""
        self._store = store
        self.key = store.key(KEY)
        code = files("resilience.store").joinpath("flags.lua").read_text()
        self._script = store.client.register_script(code)

    def read(self) -> bytes | None:
        """Return the text; None: there is none, as it was never written or the store was flushed.

        Raises:
            StoreUnavailableError: Nobody knows.
        """
        text: bytes | None = self._store.run(self._get)
        return text

    def _get(self, client: redis.Redis) -> Any:  # noqa: ANN401 - as the client's
        try:
            return client.get(self.key)
        except redis.ResponseError as error:
            if "WRONGTYPE" in str(error):
                return OTHER_TYPE
            raise

    def unreadable(self, error: object, name: str) -> None:
        """Announce once what is wrong with an entry, or with the whole text: *name* is empty."""
        self._store.unreadable(self.key, error, name=name)

    def swap(self, before: bytes | None, after: str) -> bool:
        """Write *after* if the text is still *before*; tell whether it was.

        Raises:
            StoreUnavailableError: The store does not answer, and may or may not have done it.
        """
        return bool(self._store.run(lambda _: self._script([self.key], [before or "", after])))

    def count(self, trial: str, counts: Mapping[str, float]) -> None:
        """Add *counts*, by name, to those of a trial.

        Raises:
            StoreUnavailableError: The store does not answer, and may or may not have done it.
        """
        self._store.run(partial(self._count, trial, counts))

    async def count_async(self, trial: str, counts: Mapping[str, float]) -> None:
        """Do the same without blocking the event loop."""
        await self._store.run_async(partial(self._count, trial, counts))

    def _count(self, trial: str, counts: Mapping[str, float], client: Any) -> Any:  # noqa: ANN401 - of either kind
        key, pipe = self._store.key("trial", trial), client.pipeline(transaction=False)
        for name, amount in counts.items():
            pipe.hincrbyfloat(key, name, amount)
        pipe.expire(key, COUNTS_SECONDS)
        return pipe.execute()

    def counted(self, trial: str) -> dict[str, float]:
        """Return what all processes have counted for a trial.

        Raises:
            StoreUnavailableError: The store does not answer.
        """
        key, none = self._store.key("trial", trial), dict[bytes, bytes]()
        counts = {}
        for field, text in self._store.read(key, lambda client: client.hgetall(key), none).items():
            name, amount = field.decode(errors="replace"), -1.0
            with suppress(ValueError):
                amount = float(text)
            if 0 <= amount < COUNT_MAX:
                counts[name] = amount
            else:
                self._store.unreadable(key, f"no count: {text!r:.150}", name=name)
        return counts
