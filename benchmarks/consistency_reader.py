"""What a read costs that is answered by a recent write, and how often the store is asked.

Absolute times are medians of many short runs.
"""

import asyncio
import statistics
from collections.abc import Iterator
from functools import partial
from itertools import repeat
from typing import Any

from benchmarks.breaker_fleet import exchanges, running_server
from benchmarks.figure import Figure, in_turns, median_us
from resilience.consistency import ConsistentSession
from resilience.consistency.reader import AsyncConsistentReader, ConsistentReader
from resilience.store import Store
from resilience.testing.valkey import ValkeyProcess

HIT_US = 2.0
CALLS = 5_000
CALLS_PER_RUN = 500
TEXT, DOCUMENT = "text", "document"
VALUES = {TEXT: "Ada Lovelace", DOCUMENT: {"id": 7, "name": "Ada Lovelace", "city": "London"}}


class Source:
    """A dictionary."""

    def __init__(self) -> None:
        self._held: dict[str, Any] = {}

    def read(self, key: str) -> Any:  # noqa: ANN401 - whatever was written
        """Return what is held."""
        return self._held.get(key)

    def write(self, key: str, value: object) -> None:
        """Hold *value*."""
        self._held[key] = value

    def delete(self, key: str) -> None:
        """Hold nothing under *key*."""
        self._held.pop(key, None)


class AsyncSource(Source):
    """A dictionary on an event loop."""

    async def read(self, key: str) -> Any:  # noqa: ANN401 - whatever was written
        """Return what is held."""
        return super().read(key)

    async def write(self, key: str, value: object) -> None:  # type: ignore[override]
        """Hold *value*."""
        super().write(key, value)

    async def delete(self, key: str) -> None:  # type: ignore[override]
        """Hold nothing under *key*."""
        super().delete(key)


def run(*, quick: bool) -> Iterator[Figure]:
    """Measure; *quick* takes fewer rounds."""
    repeats = 4_000 if quick else 10_000
    with running_server() as server:
        session = ConsistentSession("user:7")
        store = Store(server.url, namespace="benchmark")
        reader = ConsistentReader(Source(), name="profiles", store=store)
        for name, value in VALUES.items():
            reader.write(name, value, session=session)
        yield from _hits(reader, session, repeats)
        yield _asked(reader, session, server)
        yield from _hits_async(store, repeats)


def _hits(reader: ConsistentReader, session: ConsistentSession, repeats: int) -> Iterator[Figure]:
    source = Source()
    source.write(TEXT, VALUES[TEXT])
    plain = median_us(partial(source.read, TEXT), repeats=repeats)
    for name in VALUES:
        read = partial(reader.read, name, session=session)
        sides = {"dictionary": f"{plain:.3f} us"}
        # A document is decoded for each reader, who may change it: its price is json's.
        yield Figure(
            name=f"consistency_reader_hit_{name}",
            value=median_us(read, repeats=repeats),
            unit="us",
            bound=HIT_US if name == TEXT else None,
            sides=sides,
        )


def _asked(reader: ConsistentReader, session: ConsistentSession, server: ValkeyProcess) -> Figure:
    """Count what many hits and misses of a session ask the store, which is nothing."""
    client = server.client()
    before = exchanges(client)
    for _ in repeat(None, CALLS):
        reader.read(TEXT, session=session)
        reader.read("never written", session=session)
    sides = {"reads": 2 * CALLS}
    return Figure(
        name="consistency_reader_round_trips",
        value=exchanges(client) - before - 1,  # the question itself
        unit="count",
        bound=0,
        sides=sides,
    )


def _hits_async(store: Store, repeats: int) -> Iterator[Figure]:
    session = ConsistentSession("user:8")
    reader = AsyncConsistentReader(AsyncSource(), name="profiles", store=store)

    async def hits() -> None:
        for _ in repeat(None, CALLS_PER_RUN):
            await reader.read(TEXT, session=session)

    with asyncio.Runner() as runner:
        runner.run(reader.write(TEXT, VALUES[TEXT], session=session))
        seconds = in_turns(repeats // 20, hits=lambda: runner.run(hits()))["hits"]
    yield Figure(
        name="consistency_reader_hit_async",
        value=statistics.median(seconds) / CALLS_PER_RUN * 1e6,
        unit="us",
        bound=HIT_US,
    )
