"""A server whose side of each connection a test holds, behind a fault proxy."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from random import Random
from typing import NamedTuple

from resilience.chaos.proxy import FaultProxy
from resilience.chaos.proxy.api import Api
from resilience.chaos.proxy.http import HttpServer
from resilience.chaos.proxy.listener import split_address
from resilience.chaos.proxy.proxies import Proxies
from resilience.testing.ports import LOCALHOST

SECONDS = 120.0
"""Longest wait for what must come."""
CHUNK = 65_536
HELD_SECONDS = 0.1
"""How long a test watches that nothing comes."""


class Ends(NamedTuple):
    """The two far ends of a connection through the proxy."""

    client: socket.socket
    server: socket.socket


class Proxied:
    """A listening server, and the proxy in front of it.

    Attributes:
        proxy: The proxy.
    """

    def __init__(self, stack: ExitStack, listener: socket.socket, proxy: FaultProxy) -> None:
        """Close what it opens with *stack*."""
        self.proxy = proxy
        self._stack = stack
        self._listener = listener

    def connect(self) -> Ends:
        """Return both ends of a new connection."""
        client = self._stack.enter_context(
            socket.create_connection((LOCALHOST, self.proxy.port), SECONDS)
        )
        server, _ = self._listener.accept()
        server.settimeout(SECONDS)
        return Ends(client, self._stack.enter_context(server))


@contextmanager
def proxied(seed: int | None = None) -> Iterator[Proxied]:
    """Run a server behind a fault proxy for the length of the block."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server((LOCALHOST, 0), backlog=512))
        listener.settimeout(SECONDS)
        port = listener.getsockname()[1]
        proxy = stack.enter_context(FaultProxy(f"{LOCALHOST}:{port}", seed=seed))
        yield Proxied(stack, listener, proxy)


@contextmanager
def proxy_api() -> Iterator[int]:
    """Serve the HTTP API in a thread for the length of the block, and yield its port."""
    started: Future[tuple[int, asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def serve() -> None:
        proxies, stopped = Proxies(Random(1)), asyncio.Event()  # noqa: S311 - no secret
        server = HttpServer(Api(proxies).answer)
        port = split_address(await server.start(f"{LOCALHOST}:0"), "listen")[1]
        started.set_result((port, asyncio.get_running_loop(), stopped))
        await stopped.wait()
        await server.stop()
        await proxies.close()

    thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    port, loop, stopped = started.result(SECONDS)
    try:
        yield port
    finally:
        loop.call_soon_threadsafe(stopped.set)
        thread.join(SECONDS)


def receive(end: socket.socket, size: int) -> bytes:
    """Return the next *size* bytes, or those that come before the end."""
    received = bytearray()
    while len(received) < size and (chunk := end.recv(min(size - len(received), CHUNK))):
        received += chunk
    return bytes(received)


def receive_all(end: socket.socket) -> bytes:
    """Return all that comes before the end."""
    return receive(end, 2**40)


def comes_not(end: socket.socket) -> bool:
    """Tell whether neither data nor the end comes for a moment."""
    end.settimeout(HELD_SECONDS)
    try:
        end.recv(1, socket.MSG_PEEK)
    except TimeoutError:
        return True
    finally:
        end.settimeout(SECONDS)
    return False
