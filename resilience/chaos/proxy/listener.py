"""Listens on a TCP address, and runs a coroutine for each connection.

Addresses are written as in Toxiproxy: `host:port`, `[ipv6]:port`, or `:port` for all addresses.
"""

import asyncio
import logging
import os
import socket
from collections.abc import Awaitable, Callable
from http import HTTPStatus

from resilience.chaos.proxy.errors import ProxyError

logger = logging.getLogger(__name__)

PORT_MAX = 65_535
BACKLOG = 1024
ANY_HOST = "0.0.0.0"  # noqa: S104 - what `:8080` means

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Listener:
    """Accepts connections from `start` to `stop`; may be started again.

    Callers see to it that the two do not overlap.
    """

    def __init__(self, serve: Callable[[Streams], Awaitable[None]], buffer_bytes: int) -> None:
        """Prepare to run *serve* for each connection, which is closed when *serve* ends.

        Args:
            serve: An OSError or EOFError of it means that a peer has gone.
            buffer_bytes: A stream buffers at most twice as much.
        """
        self._serve = serve
        self._buffer_bytes = buffer_bytes
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def listens(self) -> bool:
        """Whether connections are accepted."""
        return self._server is not None

    async def start(self, address: str) -> str:
        """Listen on *address*, and return it with the IP address and port that were got.

        Raises:
            ProxyError: It cannot listen there.
        """
        host, port = await resolve(address)
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        both = host == "::" and socket.has_dualstack_ipv6()  # as in Toxiproxy, IPv4 as well
        try:
            listening = socket.create_server(
                (host, port), family=family, backlog=BACKLOG, dualstack_ipv6=both
            )
        except OSError as error:
            why = os.strerror(error.errno or 0).lower()
            msg = f"listen tcp {address}: bind: {why}; choose another port, or 0"
            raise ProxyError(msg, HTTPStatus.INTERNAL_SERVER_ERROR) from error
        self._server = await asyncio.start_server(
            self._accept, sock=listening, limit=self._buffer_bytes
        )
        return join_address(*listening.getsockname()[:2])

    async def stop(self) -> None:
        """Listen no more, and close all connections."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await asyncio.sleep(0)  # the event loop closes the sockets of what was aborted

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self.listens:  # stopped between the connection's arrival and now
            writer.transport.abort()
            return
        task = asyncio.create_task(self._run((reader, writer)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, streams: Streams) -> None:
        try:
            await self._serve(streams)
        except (OSError, EOFError) as error:
            logger.debug("a peer has gone: %r", error)
        except Exception:
            logger.exception("a connection ends with an error of the proxy")
        finally:
            streams[1].transport.abort()


def split_address(address: str, what: str) -> tuple[str, int]:
    """Return host and port of *address*; *what* is for the message.

    Raises:
        ProxyError: It is malformed.
    """
    host, colon, port = address.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    wrong_host = ":" in host and not bracketed
    if not colon or wrong_host or not port.isascii() or not port.isdigit() or int(port) > PORT_MAX:
        msg = f"{what} must be host:port with a port of at most {PORT_MAX}, got {address!r:.200}"
        raise ProxyError(msg)
    return host.strip("[]"), int(port)


def join_address(host: str, port: int) -> str:
    """Return `host:port`, with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


async def resolve(address: str) -> tuple[str, int]:
    """Return the IP address, IPv4 if there are both, and the port to listen on.

    Raises:
        ProxyError: It is malformed or unknown.
    """
    host, port = split_address(address, "listen")
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(host or ANY_HOST, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        msg = f"listen tcp {address!r:.200}: {error}; use an address of this host"
        raise ProxyError(msg, HTTPStatus.INTERNAL_SERVER_ERROR) from error
    found.sort(key=lambda info: info[0] is not socket.AF_INET)
    return str(found[0][4][0]), port
