"""How far primaries were, what operators order about their replicas, and records of many writers.

What positions and orders are is the business of `resilience.consistency.shared`; here are texts.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from typing import Any

from resilience.store.connection import Store

Question = Callable[[Any], Any]
"""What `Store.run` and `Store.run_async` ask a client of their kind."""


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
    samples: tuple[tuple[str, str], ...]

    @classmethod
    def parse(cls, answer: Sequence[Any]) -> "Exchanged":
        """Return what the answer to `PositionStore.exchange` says."""
        _, _, order, samples = answer
        parted = (_text(one).partition(" ") for one in samples)
        return cls(_now(answer), _text(order), tuple((at, text) for at, _, text in parted))


class PositionStore:
    """Makes the questions; see positions.lua and position_merge.lua for keys."""

    def __init__(self, store: Store) -> None:
        """Ask about what is in *store*; connects to nothing."""
        self._record = partial(store.key, "positions", "record")
        self._samples = partial(store.key, "positions", "samples")
        self._sources = store.key("positions", "sources")
        self._orders = store.key("positions", "orders")
        scripts = files("resilience.store")
        self._exchange = scripts.joinpath("positions.lua").read_text()
        self._merge = scripts.joinpath("position_merge.lua").read_text()

    def exchange(self, source: str, *, at: float | None, text: str, after: float) -> Question:
        """Share that *source* was at the position *text* at fleet time *at*; learn what others saw.

        Args:
            source: Name of the databases.
            at: Time of the sample; None: there is none to share.
            text: Its position.
            after: Only samples later than this fleet time are wanted.
        """
        keys = [self._samples(source), self._sources, self._orders]
        values = [source, "" if at is None else repr(float(at)), text, repr(float(after))]
        return partial(_run, self._exchange, keys, values)

    def merge(self, key: str, fields: Mapping[str, str], seconds: float) -> Question:
        """Merge *fields* into the record *key*, which then lives for at least *seconds*."""
        life = max(1, int(seconds * 1000)) if fields else 0
        words = [word for field in fields.items() for word in field]
        return partial(_run, self._merge, [self._record(key)], [str(life), *words])

    def order(self, source: str, text: str | None) -> Question:
        """Let the order for *source* be *text*; None: there is none."""
        if text is None:
            return lambda client: client.hdel(self._orders, source)
        return lambda client: client.hset(self._orders, source, text)

    def sources(self) -> Question:
        """Ask for the sources of which there were samples in the last day, or are orders."""
        return lambda client: {*client.zrange(self._sources, 0, -1), *client.hkeys(self._orders)}


def merged(answer: Sequence[Any]) -> tuple[float, dict[str, str]]:
    """Return fleet time and the fields of a record, as the answer to `PositionStore.merge` says."""
    texts = [_text(one) for one in answer[2]]
    return _now(answer), dict(zip(texts[::2], texts[1::2], strict=True))


def _run(code: str, keys: Sequence[str], values: Sequence[str], client: Any) -> Any:  # noqa: ANN401 - of either kind
    return client.register_script(code)(keys=keys, args=values)


def _now(answer: Sequence[Any]) -> float:
    return int(answer[0]) + int(answer[1]) / 1e6


def _text(raw: bytes) -> str:
    return raw.decode(errors="replace")
