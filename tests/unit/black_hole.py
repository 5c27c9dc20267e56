"""Servers that take no connection, accept some and never answer, or answer nonsense."""

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

from resilience.testing.ports import LOCALHOST

FULL_SECONDS = 0.5
"""A connection that takes so long to be made is not made: on one host it takes no time."""


@contextmanager
def black_hole() -> Iterator[str]:
    """Listen on a free port and never answer; yield the address as the URL of a store."""
    with socket.create_server((LOCALHOST, 0), backlog=64) as listener:
        yield f"redis://{LOCALHOST}:{listener.getsockname()[1]}/0"


@contextmanager
def full_house() -> Iterator[str]:
    """Listen on a free port, where nobody gets in any more; yield host and port."""
    with socket.create_server((LOCALHOST, 0), backlog=0) as listener, ExitStack() as queue:
        with suppress(TimeoutError):
            while True:
                guest = queue.enter_context(socket.socket())
                guest.settimeout(FULL_SECONDS)
                guest.connect(listener.getsockname())
        yield f"{LOCALHOST}:{listener.getsockname()[1]}"


@contextmanager
def babbler(reply: bytes, *, after: float = 0.0, hang: bool = False) -> Iterator[str]:
    """Answer the first data on each connection with *reply*; yield the address as a store's URL.

    Args:
        reply: The bytes to send.
        after: Seconds to wait before that.
        hang: Whether to keep the connection open after that, in silence.
    """
    stop = threading.Event()

    def babble(listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                connection.recv(1024)
                stop.wait(after)
                connection.sendall(reply)
                if hang:
                    stop.wait()

    with socket.create_server((LOCALHOST, 0)) as listener:
        thread = threading.Thread(target=babble, args=(listener,))
        thread.start()
        try:
            yield f"redis://{LOCALHOST}:{listener.getsockname()[1]}/0"
        finally:
            stop.set()
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(10)
