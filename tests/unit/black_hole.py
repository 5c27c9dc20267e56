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
def babbler(reply: bytes) -> Iterator[str]:
    """Answer whatever comes with *reply*, once per connection; yield the address as a store's."""

    def babble(listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                connection.recv(1024)
                connection.sendall(reply)

    with socket.create_server((LOCALHOST, 0)) as listener:
        thread = threading.Thread(target=babble, args=(listener,))
        thread.start()
        try:
            yield f"redis://{LOCALHOST}:{listener.getsockname()[1]}/0"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(10)
