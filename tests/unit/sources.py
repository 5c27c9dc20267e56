"""Key-value sources for tests of readers, and one way to use both kinds of reader."""

import asyncio
import json
import sqlite3
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from resilience.consistency.reader import AsyncConsistentReader, ConsistentReader
from resilience.consistency.records import Records
from resilience.consistency.session import ConsistentSession
from resilience.consistency.sources import Versioned
from resilience.outcome import Outcome


class Source:
    """A dictionary as a source, whose faults a test sets.

    Attributes:
        down: What every call raises.
        write_error: What a write raises instead of writing, or afterwards.
        lost_answer: Whether it writes before it raises that.
        lag: What `lag_seconds` returns.
        reads: Keys that were read, in order.
        meanwhile: Called in the middle of a write, before anything is written.
    """

    def __init__(self, *, versions: bool = False) -> None:
        """Hold nothing."""
        self.held: dict[str, tuple[Any, int]] = {}
        self.versions = versions
        self.down: Exception | None = None
        self.write_error: Exception | None = None
        self.lost_answer = False
        self.lag: Any = None
        self.reads: list[str] = []
        self.meanwhile: Callable[[], object] | None = None

    def lag_seconds(self) -> Any:  # noqa: ANN401 - nonsense, too
        """Return the lag that the test has set, or raise it."""
        if isinstance(self.lag, Exception):
            raise self.lag
        return self.lag

    def read(self, key: str) -> Any:  # noqa: ANN401 - whatever was written
        """Return what is held."""
        self.reads.append(key)
        self._fail(self.down)
        value, version = self.held.get(key, (None, 0))
        return Versioned(value, version) if self.versions else value

    def write(self, key: str, value: Any) -> int | None:  # noqa: ANN401 - whatever is written
        """Hold *value*."""
        self._fail(self.down)
        if self.meanwhile is not None:
            meanwhile, self.meanwhile = self.meanwhile, None
            meanwhile()
        if self.write_error is not None and not self.lost_answer:
            raise self.write_error
        version = self.held.get(key, (None, 0))[1] + 1
        self.held[key] = value, version
        self._fail(self.write_error)
        return version if self.versions else None

    def delete(self, key: str) -> int | None:
        """Hold nothing under *key*."""
        return self.write(key, None)

    def replicate(self, other: "Source") -> None:
        """Let *other* hold the same."""
        other.held = dict(self.held)

    @staticmethod
    def _fail(error: Exception | None) -> None:
        if error is not None:
            raise error


class SqliteSource(Source):
    """The same in a SQLite database, with versions."""

    def __init__(self, path: Path) -> None:
        """Use the file at *path*."""
        super().__init__(versions=True)
        self._database = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._database.execute("CREATE TABLE IF NOT EXISTS held (key PRIMARY KEY, value, version)")

    def read(self, key: str) -> Any:  # noqa: ANN401 - whatever was written
        """Return what is held."""
        self._fail(self.down)
        found = self._database.execute("SELECT value, version FROM held WHERE key = ?", [key])
        value, version = found.fetchone() or ("null", 0)
        return Versioned(json.loads(value), version)

    def write(self, key: str, value: Any) -> int | None:  # noqa: ANN401 - whatever is written
        """Hold *value*."""
        self._fail(self.down)
        written = self._database.execute(
            "INSERT INTO held VALUES (?, ?, 1) ON CONFLICT (key)"
            " DO UPDATE SET value = excluded.value, version = version + 1 RETURNING version",
            [key, json.dumps(value)],
        )
        return int(written.fetchone()[0])

    def close(self) -> None:
        """Close the file."""
        self._database.close()


class AsyncSource:
    """A source on an event loop."""

    def __init__(self, source: Source) -> None:
        """Do what *source* does."""
        self._source = source

    async def lag_seconds(self) -> Any:  # noqa: ANN401 - nonsense, too
        """Return its lag."""
        return self._source.lag_seconds()

    async def read(self, key: str) -> Any:  # noqa: ANN401 - whatever was written
        """Return what it holds."""
        return self._source.read(key)

    async def write(self, key: str, value: Any) -> int | None:  # noqa: ANN401 - whatever is written
        """Let it hold *value*."""
        return self._source.write(key, value)

    async def delete(self, key: str) -> int | None:
        """Let it hold nothing."""
        return self._source.delete(key)


class AnyReader(Protocol):
    """What both kinds of reader do, as tests call them."""

    def read(self, key: str, *, session: ConsistentSession | None = None) -> Outcome[Any]:
        """Read."""
        ...

    def write(
        self, key: str, value: object, *, session: ConsistentSession | None = None
    ) -> int | None:
        """Write."""
        ...

    def delete(self, key: str, *, session: ConsistentSession | None = None) -> int | None:
        """Delete."""
        ...


class OnLoops:
    """An `AsyncConsistentReader`, each call on an event loop of its own."""

    def __init__(self, primary: Source, replicas: Sequence[Source], **options: Any) -> None:  # noqa: ANN401 - handed on
        """Make the reader."""
        asynchronous = [AsyncSource(replica) for replica in replicas]
        self._reader = AsyncConsistentReader(AsyncSource(primary), asynchronous, **options)

    def read(self, key: str, *, session: ConsistentSession | None = None) -> Outcome[Any]:
        """Read."""
        return asyncio.run(self._reader.read(key, session=session))

    def write(
        self, key: str, value: object, *, session: ConsistentSession | None = None
    ) -> int | None:
        """Write."""
        return asyncio.run(self._reader.write(key, value, session=session))

    def delete(self, key: str, *, session: ConsistentSession | None = None) -> int | None:
        """Delete."""
        return asyncio.run(self._reader.delete(key, session=session))

    def write_many(self, number: int, session: Callable[[], ConsistentSession]) -> None:
        """Write on one loop: another for each write would cost more than the writes."""

        async def write() -> None:
            for one in range(number):
                await self._reader.write(f"k{one}", one, session=session())

        asyncio.run(write())


def write_many(reader: AnyReader, number: int, session: Callable[[], ConsistentSession]) -> None:
    """Write *number* keys, `k0` and so on, each in the *session* that is returned for it."""
    if isinstance(reader, OnLoops):
        reader.write_many(number, session)
        return
    for one in range(number):
        reader.write(f"k{one}", one, session=session())


Make = Callable[..., AnyReader]
"""Makes a reader of a primary, replicas and options."""
WAYS: dict[str, Make] = {"sync": ConsistentReader, "async": OnLoops}


def in_a_thread(act: Callable[[], object]) -> Callable[[], None]:
    """Return a function that does *act* in another thread, and waits for its end."""

    def run() -> None:
        thread = threading.Thread(target=act)
        thread.start()
        thread.join(20)

    return run


def records_of(reader: Any) -> Records:  # noqa: ANN401 - of either kind
    """Return what *reader* knows."""
    records: Records = getattr(reader, "_reader", reader)._records  # noqa: SLF001 - its bounds
    return records
