"""How far primaries were, what operators order about their replicas, and records of many writers.

What positions and orders are is the business of `resilience.consistency.shared`; here are texts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from typing import Any, Final

from resilience.store.connection import Store

ORDERS_KEY: Final = ("positions", "orders")
SOURCES_KEY: Final = ("positions", "sources")


@dataclass(frozen=True, slots=True)
class Exchanged:
    """What one exchange about a source has brought.

    Attributes:
        now: Fleet time.
        order: The order that was given for the source, also if it has ended; empty: none.
        samples: Fleet time and position of each sample, the oldest first.
    """

    now: float
    order: str
    samples: tuple[tuple[float, str], ...]


class PositionStore:
    """Keeps them in the store; see positions.lua and position_merge.lua for keys.

    When the store is down every method raises `StoreUnavailableError`.
    """

    def __init__(self, store: Store) -> None:
        """Keep them in *store*; connects to nothing."""
        self._store = store
        scripts = files("resilience.store")
        self._exchange_code = scripts.joinpath("positions.lua").read_text()
        self._merge_code = scripts.joinpath("position_merge.lua").read_text()

    def exchange(self, source: str, *, at: float | None, text: str, after: float) -> Exchanged:
        """Share that *source* was at the position *text* at fleet time *at*; learn what others saw.

        Args:
            source: Name of the databases.
            at: Time of the sample; None: there is none to share.
            text: Its position.
            after: Only samples later than this fleet time are wanted.
        """
        return _exchanged(self._store.run(self._exchanging(source, at, text, after)))

    async def exchange_async(
        self, source: str, *, at: float | None, text: str, after: float
    ) -> Exchanged:
        """Do the same without blocking the event loop."""
        return _exchanged(await self._store.run_async(self._exchanging(source, at, text, after)))

    def merge(
        self, key: str, fields: Mapping[str, str], seconds: float
    ) -> tuple[float, dict[str, str]]:
        """Merge *fields* into the record *key*, which then lives for at least *seconds*.

        Returns:
            Fleet time, and all fields of the record.
        """
        return _merged(self._store.run(self._merging(key, fields, seconds)))

    async def merge_async(
        self, key: str, fields: Mapping[str, str], seconds: float
    ) -> tuple[float, dict[str, str]]:
        """Do the same without blocking the event loop."""
        return _merged(await self._store.run_async(self._merging(key, fields, seconds)))

    def load(self, key: str) -> tuple[float, dict[str, str]]:
        """Return fleet time, and all fields of the record *key*; none if there is no record."""
        return _loaded(self._store.run(partial(self._hash, self._record(key))))

    async def load_async(self, key: str) -> tuple[float, dict[str, str]]:
        """Do the same without blocking the event loop."""
        return _loaded(await self._store.run_async(partial(self._hash, self._record(key))))

    def order(self, source: str, text: str | None) -> None:
        """Let the order for *source* be *text*; None: there is none."""
        key = self._store.key(*ORDERS_KEY)
        if text is None:
            self._store.run(lambda client: client.hdel(key, source))
        else:
            self._store.run(lambda client: client.hset(key, source, text))

    def orders(self) -> tuple[float, dict[str, str]]:
        """Return fleet time, and the orders by source, also those that have ended."""
        return _loaded(self._store.run(partial(self._hash, self._store.key(*ORDERS_KEY))))

    def sources(self) -> list[str]:
        """Return the sources of which there were samples in the last day."""
        key = self._store.key(*SOURCES_KEY)
        names: Any = self._store.run(lambda client: client.zrange(key, 0, -1))
        return [name.decode(errors="replace") for name in names]

    def _record(self, key: str) -> str:
        return self._store.key("positions", "record", key)

    def _exchanging(self, source: str, at: float | None, text: str, after: float) -> Any:  # noqa: ANN401 - of either kind
        keys = [self._store.key("positions", "samples", source)]
        keys += [self._store.key(*one) for one in (SOURCES_KEY, ORDERS_KEY)]
        values = [source, "" if at is None else repr(float(at)), text, repr(float(after))]
        return partial(_run, self._exchange_code, keys, values)

    def _merging(self, key: str, fields: Mapping[str, str], seconds: float) -> Any:  # noqa: ANN401 - as above
        values = [str(max(1, int(seconds * 1000)))]
        values += [word for field in fields.items() for word in field]
        return partial(_run, self._merge_code, [self._record(key)], values)

    @staticmethod
    def _hash(key: str, client: Any) -> Any:  # noqa: ANN401 - as above
        pipe = client.pipeline(transaction=False)
        pipe.time()
        pipe.hgetall(key)
        return pipe.execute()


def _run(code: str, keys: Sequence[str], values: Sequence[str], client: Any) -> Any:  # noqa: ANN401 - as above
    return client.register_script(code)(keys=keys, args=values)


def _exchanged(answer: Any) -> Exchanged:  # noqa: ANN401 - the script's
    seconds, microseconds, order, texts = answer
    samples = (text.decode(errors="replace").partition(" ") for text in texts)
    return Exchanged(
        _now(seconds, microseconds),
        order.decode(errors="replace"),
        tuple((_number(at), text) for at, _, text in samples),
    )


def _merged(answer: Any) -> tuple[float, dict[str, str]]:  # noqa: ANN401 - the script's
    seconds, microseconds, flat = answer
    texts = [one.decode(errors="replace") for one in flat]
    return _now(seconds, microseconds), dict(zip(texts[::2], texts[1::2], strict=True))


def _loaded(answer: Any) -> tuple[float, dict[str, str]]:  # noqa: ANN401 - the client's
    (seconds, microseconds), kept = answer
    texts = {
        key.decode(errors="replace"): one.decode(errors="replace") for key, one in kept.items()
    }
    return _now(seconds, microseconds), texts


def _now(seconds: Any, microseconds: Any) -> float:  # noqa: ANN401 - texts or numbers
    return int(seconds) + int(microseconds) / 1e6


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")  # which is in no order with any time
