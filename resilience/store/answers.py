"""Remembered answers, which stand in when a dependency fails."""

import hashlib
import json
import math
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FunctionType
from typing import Any

from resilience.clock import Clock, SystemClock
from resilience.errors import ConfigurationError, NoStoredAnswerError, StoreUnavailableError
from resilience.store.connection import Store
from resilience.store.script import Script

REWRITE_SHARE = 0.02
"""A remembered answer is rewritten after this share of its life, not at every success."""
REWRITE_SECONDS_MAX = 30.0
"""It is rewritten after this time at the latest."""
DIGITS_MAX = 15
"""No answer lives for so many milliseconds."""
THROTTLED_KEYS = 10_000
"""How many keys a process knows the last write of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A remembered answer and the seconds since it was remembered."""

    value: Any
    age: float


class Answers:
    """The last good answers by key. Each of them expires.

    Ages follow from the server's own expiry, so that no host's clock matters. While the store is
    down `refresh` drops what it should write, and `recall` raises `StoreUnavailableError`.

    Keys: `{namespace}:answer:<name>` and `{namespace}:answer:<call>:<digest of its arguments>`,
    a string `<life in ms>:<JSON>` with that expiry.
    """

    def __init__(
        self,
        store: Store,
        *,
        dumps: Callable[[Any], str] = json.dumps,
        loads: Callable[[bytes | str], Any] = json.loads,
        clock: Clock | None = None,
    ) -> None:
        """Keep answers in *store*, written by *dumps* and read by *loads*."""
        self._store = store
        self._dumps = dumps
        self._loads = loads
        self._clock = clock or SystemClock()
        self._script = Script("answer")
        self._written: OrderedDict[str, float] = OrderedDict()

    def key(self, name: str) -> str:
        """Return the full key of the answer called *name*."""
        return self._store.key("answer", name)

    def key_of_call(self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
        """Return the full key of the last answer of *name* to these arguments."""
        arguments = self._dumps([list(args), sorted(kwargs.items())])
        if "{" in arguments:
            # Equal mappings must give the same key, whatever their order.
            arguments = json.dumps(json.loads(arguments), sort_keys=True)
        return self.key(f"{name}:{hashlib.sha256(arguments.encode()).hexdigest()[:32]}")

    def encode(self, value: object, max_age: float) -> tuple[str, int]:
        """Return the text that stores *value*, and its life in milliseconds.

        Raises:
            ValueError: *max_age* is not more than 0, or not finite.
        """
        if not (math.isfinite(max_age) and max_age > 0):
            msg = f"max_age must be more than 0 seconds, got {max_age!r}"
            raise ValueError(msg)
        life = max(1, int(max_age * 1000))
        return f"{life}:{self._dumps(value)}", life

    def decode(self, text: bytes, left_ms: int) -> Answer:
        """Return the answer that *text* stores, with *left_ms* of its life left.

        Raises:
            NoStoredAnswerError: It cannot be read, as if another program had written it.
        """
        life, _, document = text.partition(b":")
        try:
            if len(life) > DIGITS_MAX:
                raise ValueError(life)  # noqa: TRY301 - unreadable as the rest
            return Answer(value=self._loads(document), age=max(0, int(life) - left_ms) / 1000)
        except Exception as error:
            msg = f"the remembered answer cannot be read: {type(error).__name__}"
            raise NoStoredAnswerError(msg) from error

    def remember(self, name: str, value: object, *, max_age: float) -> None:
        """Keep *value* under *name* for *max_age* seconds, for `fallback.cached(name)`.

        Raises:
            StoreUnavailableError: It was not kept.
            ValueError: *max_age* is not more than 0, or not finite.
        """
        text, life = self.encode(value, max_age)
        self._store.run(lambda client: client.set(self.key(name), text, px=life))

    def refresh(self, key: str, value: object, *, max_age: float) -> None:
        """Keep *value* under the full *key*, unless this process has done so lately.

        Raises nothing if the store is lost or refuses: the answer at hand matters more.
        """
        if not self._due(key, max_age):
            return
        with self._noting_failure(key):
            text, life = self.encode(value, max_age)
            self._store.run(lambda client: client.set(key, text, px=life))

    async def refresh_async(self, key: str, value: object, *, max_age: float) -> None:
        """Do the same as `refresh` without blocking the event loop."""
        if not self._due(key, max_age):
            return
        with self._noting_failure(key):
            text, life = self.encode(value, max_age)
            await self._store.run_async(lambda client: client.set(key, text, px=life))

    def recall(self, key: str) -> Answer | None:
        """Return the answer under the full *key*; None if there is none.

        Raises:
            NoStoredAnswerError: What is there cannot be read.
            StoreUnavailableError: The store does not answer, or refuses.
        """
        return self._read(self._store.run(lambda client: self._script.ask(client, [key])))

    async def recall_async(self, key: str) -> Answer | None:
        """Do the same as `recall` without blocking the event loop."""
        found = await self._store.run_async(lambda client: self._script.ask_async(client, [key]))
        return self._read(found)

    def _read(self, found: bytes | None) -> Answer | None:
        if found is None:
            return None
        left_ms, _, text = found.partition(b":")
        return self.decode(text, int(left_ms))

    @contextmanager
    def _noting_failure(self, key: str) -> Iterator[None]:
        written = False
        try:
            yield
            written = True
        except StoreUnavailableError:
            pass  # the answer at hand matters more
        finally:
            if not written:
                self._written.pop(key, None)

    def _due(self, key: str, max_age: float) -> bool:
        now = self._clock.monotonic()
        last = self._written.pop(key, None)
        if last is not None and now - last < min(max_age * REWRITE_SHARE, REWRITE_SECONDS_MAX):
            self._written[key] = last
            return False
        self._written[key] = now
        while len(self._written) > THROTTLED_KEYS:
            self._written.popitem(last=False)
        return True


def name_of(function: Callable[..., Any]) -> str:
    """Return the unique name under which to remember the answers of *function*.

    Raises:
        ConfigurationError: It has none, being a lambda, a nested function or no function at all:
            its answers may depend on more than its arguments.
    """
    if not isinstance(function, FunctionType) or "<" in function.__qualname__:
        msg = (
            f"{function!r} has no name to remember its answers under; "
            'give the pipeline one of its own: name="…"'
        )
        raise ConfigurationError(msg)
    return f"{function.__module__}.{function.__qualname__}"
