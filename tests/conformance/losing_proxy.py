"""A proxy that delivers a request and loses its answer: the server has done what was asked."""

import socket
import threading
from contextlib import suppress

from resilience.testing.ports import LOCALHOST

CHUNK = 65_536


class LosingProxy:
    """Forwards to a server; when armed, it cuts the connection in place of the next answer.

    Attributes:
        port: Where it listens on 127.0.0.1.
        lost: Answers that it has lost.
    """

    def __init__(self, target: int) -> None:
        """Forward to port *target* of 127.0.0.1."""
        self._target = target
        self._spare: int | None = None
        self.lost = 0
        self._ends: list[socket.socket] = []
        self._listener = socket.create_server((LOCALHOST, 0))
        self.port: int = self._listener.getsockname()[1]
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    def lose(self, *, after: int = 0) -> None:
        """Lose the next answer but *after*."""
        self._spare = after

    def close(self) -> None:
        """Close all connections, and listen no more."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._accepting.join()
        _close(*self._ends)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection((LOCALHOST, self._target))
            self._ends += client, server
            for source, sink, answers in ((client, server, False), (server, client, True)):
                threading.Thread(
                    target=self._pass_on, args=(source, sink, answers), daemon=True
                ).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket, answers: bool) -> None:  # noqa: FBT001 - which way
        with suppress(OSError):
            while chunk := source.recv(CHUNK):
                if answers and self._spare is not None:
                    if self._spare == 0:
                        self._spare, self.lost = None, self.lost + 1
                        break
                    self._spare -= 1
                sink.sendall(chunk)
        _close(source, sink)


def _close(*ends: socket.socket) -> None:
    for end in ends:
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
        end.close()
