"""Connections that ask where the store is each time they connect.

A Sentinel knows which server is the primary; a node of a cluster knows which one holds a slot.
All keys of a namespace are in one slot, so either way there is one server to find, and the client
is an ordinary one whose pool follows that server around (redis-py's own for Sentinel).
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import redis
import redis.asyncio
from redis.asyncio.connection import Connection as AsyncConnection
from redis.asyncio.connection import ConnectionPool as AsyncConnectionPool
from redis.asyncio.connection import SSLConnection as AsyncSSLConnection
from redis.asyncio.sentinel import SentinelManagedConnection as AsyncSentinelManagedConnection
from redis.connection import Connection, ConnectionPool, SSLConnection
from redis.crc import key_slot
from redis.exceptions import MovedError
from redis.sentinel import MasterNotFoundError, SentinelManagedConnection

Address = tuple[str, int]
LOST = (redis.ConnectionError, redis.TimeoutError)


class Map(Protocol):
    """How one kind of server is asked where the store is."""

    @property
    def command(self) -> tuple[str, ...]:
        """The question."""
        ...

    def read(self, answer: Any, asked: Address) -> Address | None:  # noqa: ANN401 - raw
        """Return where the store is by the *answer* of the server *asked*, None if unknown."""
        ...


class SentinelMap:
    """Sentinels know the primary by the name they watch it under."""

    def __init__(self, name: str) -> None:
        """Look for the primary called *name*."""
        self.command = ("SENTINEL GET-MASTER-ADDR-BY-NAME", name)

    def read(self, answer: Any, asked: Address) -> Address | None:  # noqa: ANN401, ARG002 - as Map
        """Return the primary's address."""
        return (_text(answer[0]), int(answer[1])) if answer else None


class SlotMap:
    """Nodes of a cluster know which of them holds a key."""

    command = ("CLUSTER SLOTS",)

    def __init__(self, key: str) -> None:
        """Look for the node with *key*."""
        self._slot = key_slot(key.encode())

    def read(self, answer: Any, asked: Address) -> Address | None:  # noqa: ANN401 - as Map
        """Return that node's address; one that names no host has that of the server *asked*."""
        for first, last, primary, *_ in answer:
            if first <= self._slot <= last:
                return _text(primary[0] or b"") or asked[0], int(primary[1])
        return None


class Guide:
    """The servers that know, the next to be asked first.

    One that has no connection or no answer to give goes to the end of the row. One that hangs ends
    the search, too: the next caller is luckier, and no caller waits for more than one.
    """

    def __init__(
        self, servers: Sequence[Address], where: Map, *, tls: bool, options: dict[str, Any]
    ) -> None:
        """Ask *servers*, on connections with *options*, for what is on the map *where*."""
        self._servers = tuple(servers)
        self._map = where
        self._tls = tls
        self._options = options

    def doubt(self) -> None:
        """Ask another server next time: where this one led, the store was not."""
        self._servers = (*self._servers[1:], *self._servers[:1])

    def discover_master(self, _: str) -> Address:
        """Return where the store is; the name is that of redis-py's `Sentinel`.

        Raises:
            redis.ConnectionError: No server knows.
            redis.TimeoutError: One did not answer.
            redis.ResponseError: One is not what the URL says it is.
        """
        errors: list[str] = []
        kind = SSLConnection if self._tls else Connection
        for host, port in self._servers:
            with self._asking(host, port, errors):
                pool = ConnectionPool(connection_class=kind, host=host, port=port, **self._options)
                with redis.Redis.from_pool(pool) as client:
                    return self._read(client.execute_command(*self._map.command), (host, port))
        raise self._nowhere(errors)

    def _read(self, answer: Any, asked: Address) -> Address:  # noqa: ANN401 - as Map
        found = self._map.read(answer, asked)
        if found is None:
            msg = "does not know"
            raise redis.ConnectionError(msg)
        return found

    @contextmanager
    def _asking(self, host: str, port: int, errors: list[str]) -> Iterator[None]:
        try:
            yield
        except redis.ConnectionError as error:
            self.doubt()
            errors.append(f"{host}:{port}: {error}")
        except redis.TimeoutError:
            self.doubt()
            raise

    def _nowhere(self, errors: list[str]) -> MasterNotFoundError:
        return MasterNotFoundError(f"nobody knows where the store is: {'; '.join(errors)}")


class AsyncGuide(Guide):
    """The same for an event loop."""

    async def discover_master(self, _: str) -> Address:  # type: ignore[override]  # same, awaited
        """Do the same as `Guide.discover_master` without blocking the event loop."""
        errors: list[str] = []
        kind = AsyncSSLConnection if self._tls else AsyncConnection
        for host, port in self._servers:
            with self._asking(host, port, errors):
                pool = AsyncConnectionPool(kind, host=host, port=port, **self._options)
                async with redis.asyncio.Redis.from_pool(pool) as client:
                    asking = client.execute_command(*self._map.command)  # type: ignore[no-untyped-call]
                    answer = await asking
                    return self._read(answer, (host, port))
        raise self._nowhere(errors)


class GuidedConnection(SentinelManagedConnection):
    """A connection to wherever the guide says the store is.

    When it breaks or hangs, or the server says that it is not the one (any more), the idle
    connections of the pool go as well, and the guide is asked again.
    """

    def connect_to(self, address: Address) -> None:
        """Connect to *address*."""
        try:
            super().connect_to(address)  # type: ignore[no-untyped-call]
        except LOST:
            self.connection_pool.sentinel_manager.doubt()
            raise

    def read_response(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as redis-py
        """Return the next answer."""
        try:
            return super().read_response(*args, **kwargs)
        except LOST:
            self._leave()
            raise
        except MovedError as error:
            self._leave()
            raise _moved(error) from error

    def _leave(self) -> None:
        self.disconnect()  # type: ignore[no-untyped-call]
        self.connection_pool.sentinel_manager.doubt()
        pool = self.connection_pool.connection_pool_ref()
        if pool is not None:
            pool.disconnect(inuse_connections=False)


class GuidedSSLConnection(GuidedConnection, SSLConnection):
    """The same, encrypted."""


class AsyncGuidedConnection(AsyncSentinelManagedConnection):
    """The same as `GuidedConnection` for an event loop."""

    async def connect_to(self, address: Address) -> None:
        """Connect to *address*."""
        try:
            await super().connect_to(address)  # type: ignore[no-untyped-call]
        except LOST:
            self.connection_pool.sentinel_manager.doubt()
            raise

    async def read_response(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as redis-py
        """Return the next answer."""
        try:
            return await super().read_response(*args, **kwargs)
        except LOST:
            await self._leave()
            raise
        except MovedError as error:
            await self._leave()
            raise _moved(error) from error

    async def _leave(self) -> None:
        await self.disconnect(nowait=True)
        self.connection_pool.sentinel_manager.doubt()
        await self.connection_pool.disconnect(inuse_connections=False)


class AsyncGuidedSSLConnection(AsyncGuidedConnection, AsyncSSLConnection):
    """The same, encrypted."""


def _moved(error: MovedError) -> redis.ConnectionError:
    # A refusal would be an answer of the store; this one is of a server that is not the store.
    return redis.ConnectionError(f"the store has moved: {error}")


def _text(word: bytes | str) -> str:
    return word if isinstance(word, str) else word.decode()
