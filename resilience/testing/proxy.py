"""A TCP proxy that stands for the network between clients and a server."""

import socket
import threading
from contextlib import suppress

from resilience.testing.ports import LOCALHOST

CHUNK = 65_536
BACKLOG = 128
CONNECT_SECONDS = 5.0


class TcpProxy:
    """Passes on what clients and a server say, until it is told to hold it back or to lose it.

    What it loses, nobody is told of: connections stay open, as behind a firewall that has forgotten
    them. What it holds back or slows arrives later, as over a link that is congested.

    Attributes:
        port: Where it listens on 127.0.0.1.
    """

    def __init__(self, target: int) -> None:
        """Listen on a free port, and lead to port *target* of 127.0.0.1."""
        self._target = target
        self._deaf = False
        self._pace = _Pace()
        self._links: list[_Link] = []
        self._listener = socket.create_server((LOCALHOST, 0), backlog=BACKLOG)
        self.port: int = self._listener.getsockname()[1]
        self._accepting = threading.Thread(target=self._accept, name="tcp-proxy", daemon=True)
        self._accepting.start()

    def lead_to(self, target: int) -> None:
        """Lead new connections to port *target*; those that there are stay where they are."""
        self._target = target

    def forget(self) -> None:
        """Pass on nothing more over the connections that there are; new ones work."""
        for link in list(self._links):
            link.forgotten.set()

    def swallow(self) -> None:
        """Pass on nothing more, over new connections either."""
        self._deaf = True
        self.forget()

    def heal(self) -> None:
        """Let new connections work again; what was forgotten stays so."""
        self._deaf = False

    def stall(self) -> None:
        """Hold back all that either end sends, and that it closes, until `resume`.

        New connections are accepted on both sides, and held back as well.
        """
        self._pace.flowing.clear()

    def slow(self, seconds: float) -> None:
        """Pass on what either end sends, and that it closes, *seconds* later, until `resume`.

        The order is kept. On a busy link it may take twice as long, and no more than 64 KiB leave
        at once. A link that is stalled stays so.
        """
        self._pace.delay = seconds
        self._pace.hurried.clear()

    def resume(self) -> None:
        """Pass on at once what was held back or slowed, and all that follows."""
        self._pace.hurried.set()
        self._pace.flowing.set()

    def cut(self) -> None:
        """Close the connections that there are, for both ends to see; new ones work."""
        links, self._links = self._links, []
        for link in links:
            link.close()

    def close(self) -> None:
        """Close all connections, and listen no more."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._accepting.join()  # it may just take one more
        self.cut()
        self.resume()  # for the threads that hold something back to end

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
            if self._deaf:
                link.forgotten.set()
            self._links.append(link)
            link.start()


class _Pace:
    """When all links of a proxy pass on what they have received."""

    def __init__(self) -> None:
        self.flowing = threading.Event()
        self.flowing.set()
        self.hurried = threading.Event()
        self.hurried.set()
        self.delay = 0.0

    def hold(self) -> None:
        """Return when it is time."""
        self.hurried.wait(self.delay)
        self.flowing.wait()


class _Link:
    """A client's connection, and the one to the server."""

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
            while said := source.recv(CHUNK):
                self._pace.hold()
                if self.forgotten.is_set():
                    return
                sink.sendall(said)
        self._pace.hold()  # that one end has left is held back as well
        if not self.forgotten.is_set():
            self.close()
