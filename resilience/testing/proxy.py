"""A TCP proxy that stands for the network between clients and a server."""

import socket
import threading
from contextlib import suppress

from resilience.testing.ports import LOCALHOST

CHUNK = 65_536
BACKLOG = 128
CONNECT_SECONDS = 5.0


class TcpProxy:
    """Forwards between clients and a server, until it is made to delay or to drop what they send.

    Neither end notices what is dropped: its connection stays open, as behind a firewall that has
    forgotten it. What is held back or slowed arrives later, as over a congested link.

    Attributes:
        port: Where it listens on 127.0.0.1.
    """

    def __init__(self, target: int) -> None:
        """Listen on a free port, and forward to port *target* of 127.0.0.1."""
        self._target = target
        self._swallowing = False
        self._pace = _Pace()
        self._links: list[_Link] = []
        self._listener = socket.create_server((LOCALHOST, 0), backlog=BACKLOG)
        self.port: int = self._listener.getsockname()[1]
        self._accepting = threading.Thread(target=self._accept, name="tcp-proxy", daemon=True)
        self._accepting.start()

    def lead_to(self, target: int) -> None:
        """Forward new connections to port *target*; existing ones stay where they are."""
        self._target = target

    def forget(self) -> None:
        """Drop all that is sent over existing connections from now on; new ones work."""
        for link in list(self._links):
            link.forgotten.set()

    def swallow(self) -> None:
        """Drop all that is sent from now on, also over new connections."""
        self._swallowing = True
        self.forget()

    def heal(self) -> None:
        """Let new connections work again; forgotten ones stay forgotten."""
        self._swallowing = False

    def stall(self) -> None:
        """Hold back what either end sends, its closing included, until `resume`.

        New connections are established, and held back as well.
        """
        self._pace.flowing.clear()

    def slow(self, seconds: float) -> None:
        """Forward what either end sends, its closing included, *seconds* later, until `resume`.

        The order is kept. On a busy link it may take twice as long, and at most 64 KiB are
        forwarded at once. A stalled link stays stalled.
        """
        self._pace.delay = seconds
        self._pace.hurried.clear()

    def resume(self) -> None:
        """Forward what was held back or slowed, and from now on everything at once."""
        self._pace.hurried.set()
        self._pace.flowing.set()

    def cut(self) -> None:
        """Close existing connections so that both ends notice; new ones work."""
        links, self._links = self._links, []
        for link in links:
            link.close()

    def close(self) -> None:
        """Close all connections, and listen no more."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._accepting.join()  # it may be accepting one more
        self.cut()
        self.resume()  # so that threads which hold something back end

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection((LOCALHOST, self._target), CONNECT_SECONDS)
            except OSError:
                client.close()
                continue
            server.settimeout(None)
            link = _Link(client, server, self._pace)
            if self._swallowing:
                link.forgotten.set()
            self._links.append(link)
            link.start()


class _Pace:
    """When the links of a proxy forward what they have received."""

    def __init__(self) -> None:
        self.flowing = threading.Event()
        self.flowing.set()
        self.hurried = threading.Event()
        self.hurried.set()
        self.delay = 0.0

    def hold(self) -> None:
        """Wait until the time has come to forward."""
        self.hurried.wait(self.delay)
        self.flowing.wait()


class _Link:
    """A client's connection, and the connection to the server behind it."""

    def __init__(self, client: socket.socket, server: socket.socket, pace: _Pace) -> None:
        self.forgotten = threading.Event()
        self._pace = pace
        self._ends = (client, server)

    def start(self) -> None:
        for source, sink in (self._ends, self._ends[::-1]):
            threading.Thread(target=self._pass_on, args=(source, sink), daemon=True).start()

    def close(self) -> None:
        for end in self._ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _pass_on(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while chunk := source.recv(CHUNK):
                self._pace.hold()
                if self.forgotten.is_set():
                    return
                sink.sendall(chunk)
        self._pace.hold()  # the closing is held back as well
        if not self.forgotten.is_set():
            self.close()
