"""A proxy between clients and one upstream server."""

import asyncio
import logging
from http import HTTPStatus
from random import Random
from typing import Any

from resilience.chaos.proxy.errors import ProxyError
from resilience.chaos.proxy.link import CHUNK_BYTES, Connection
from resilience.chaos.proxy.listener import (
    Listener,
    Streams,
    join_address,
    resolve,
    split_address,
)
from resilience.chaos.proxy.toxic import Toxic

logger = logging.getLogger(__name__)

CONNECT_SECONDS = 10.0
"""Longest wait for the upstream to accept a connection."""


class Proxy:
    """Listens on an address while it is enabled, and links each client to the upstream.

    All methods belong to one event loop. Callers see to it that `start`, `stop` and `update` do
    not overlap.

    Attributes:
        name: Unique within a server.
        listen: `host:port`; a port of 0 becomes the one that was got.
        upstream: `host:port` of the server behind.
        toxics: In the order in which they were added.
    """

    def __init__(self, name: str, listen: str, upstream: str, random: Random) -> None:
        """Make a proxy that does not listen yet.

        Raises:
            ProxyError: An address is malformed.
        """
        split_address(listen, "listen")
        split_address(upstream, "upstream")
        self.name = name
        self.listen = listen
        self.upstream = upstream
        self.toxics: list[Toxic] = []
        self._random = random
        self._listener = Listener(self._serve, CHUNK_BYTES)
        self._connections: dict[Connection, None] = {}  # in order, for the sake of the seed

    @property
    def enabled(self) -> bool:
        """Whether it listens."""
        return self._listener.listens

    @property
    def view(self) -> dict[str, Any]:
        """The JSON object that clients see; toxics of the upstream first."""
        toxics = sorted(self.toxics, key=lambda toxic: toxic.stream, reverse=True)
        return {
            "name": self.name,
            "listen": self.listen,
            "upstream": self.upstream,
            "enabled": self.enabled,
            "toxics": [toxic.view for toxic in toxics],
        }

    async def start(self) -> None:
        """Listen, unless the proxy does already.

        Raises:
            ProxyError: It cannot listen there.
        """
        if not self.enabled:
            self.listen = await self._listener.start(self.listen)

    async def stop(self) -> None:
        """Listen no more, and close all connections."""
        await self._listener.stop()

    async def differs(self, listen: str, upstream: str) -> bool:
        """Tell whether the proxy has other addresses; a name is the address that it stands for.

        Raises:
            ProxyError: The address to listen on is malformed or unknown.
        """
        return upstream != self.upstream or join_address(*await resolve(listen)) != self.listen

    async def update(self, listen: str, upstream: str, *, enabled: bool) -> None:
        """Move the proxy to other addresses, which closes its connections; enable or disable it.

        Raises:
            ProxyError: An address is malformed or unknown, or it cannot listen there. Then it is
                disabled.
        """
        split_address(upstream, "upstream")
        if await self.differs(listen, upstream):
            await self.stop()
            self.listen, self.upstream = listen, upstream
        await (self.start() if enabled else self.stop())

    def toxic(self, name: str) -> Toxic:
        """Return the toxic of that name.

        Raises:
            ProxyError: There is none.
        """
        for toxic in self.toxics:
            if toxic.name == name:
                return toxic
        msg = "toxic not found"
        raise ProxyError(msg, HTTPStatus.NOT_FOUND)

    def add(self, toxic: Toxic) -> None:
        """Let *toxic* affect existing and new connections.

        Raises:
            ProxyError: One of that name exists.
        """
        if any(toxic.name == other.name for other in self.toxics):
            msg = "toxic already exists"
            raise ProxyError(msg, HTTPStatus.CONFLICT)
        self._apply([*self.toxics, toxic])

    def change(self, name: str, body: object) -> Toxic:
        """Change a toxic as a JSON object says, and return it.

        Raises:
            ProxyError: There is none of that name, or a value is wrong.
        """
        before = self.toxic(name)
        after = before.updated(body)
        self._apply([after if toxic is before else toxic for toxic in self.toxics])
        return after

    def remove(self, name: str) -> None:
        """Remove a toxic, also from existing connections.

        Raises:
            ProxyError: There is none of that name.
        """
        removed = self.toxic(name)
        self._apply([toxic for toxic in self.toxics if toxic is not removed])

    def clear(self) -> None:
        """Remove all toxics."""
        self._apply([])

    def _apply(self, toxics: list[Toxic]) -> None:
        self.toxics = toxics
        for connection in self._connections:
            connection.apply(toxics)

    async def _serve(self, client: Streams) -> None:
        """Link a client to the upstream until both streams have ended."""
        host, port = split_address(self.upstream, "upstream")
        random = Random(self._random.getrandbits(64))  # noqa: S311 - no secret
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                server = await asyncio.open_connection(host, port, limit=CHUNK_BYTES)
        except (OSError, UnicodeError) as error:
            logger.warning("proxy %s: %s cannot be reached: %r", self.name, self.upstream, error)
            return
        connection = Connection(client, server, random)
        self._connections[connection] = None
        try:
            connection.apply(self.toxics)
            await connection.run()
        finally:
            del self._connections[connection]
            server[1].transport.abort()
