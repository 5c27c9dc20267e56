"""Servers that take connections and are of no use."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from resilience.testing.ports import LOCALHOST


@contextmanager
def black_hole() -> Iterator[str]:
    """Listen on a free port and never answer; yield the address as the URL of a store."""
    with socket.create_server((LOCALHOST, 0), backlog=64) as listener:
        yield f"redis://{LOCALHOST}:{listener.getsockname()[1]}/0"


@contextmanager
def babbler(reply: bytes, *, after: float = 0.0, hang: bool = False) -> Iterator[str]:
    """Answer whatever comes first on a connection with *reply*; yield the address as a store's.

    Args:
        reply: The bytes to send.
        after: Seconds to wait before that.
        hang: Whether to keep the connection open then, in silence.
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
