"""A server whose side of each connection a test holds, behind a fault proxy."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

from resilience.chaos.proxy import FaultProxy
from resilience.testing.ports import LOCALHOST

SECONDS = 30.0
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


def answers(ends: Ends) -> bool:
    """Tell whether what the server sends reaches the client."""
    ends.server.sendall(b"x")
    if comes_not(ends.client):
        return False
    return receive(ends.client, 1) == b"x"
