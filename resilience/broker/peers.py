"""Notices killed workers by their connection to a Redis broker, which the kernel has closed.

Each worker notes on the server the id of its heartbeat's connection. Some other workers watch it:
they ask the server whether that connection is open (`CLIENT LIST ID`). A living worker waits on its
connection, so that it notes a new one within moments. Ids are compared only with those of the same
run of the server.
"""

import logging
import os
import socket
import threading
import weakref
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NamedTuple
from uuid import uuid4

import redis
from redis.exceptions import ResponseError

from resilience.broker.silence import has_spoken
from resilience.broker.unacked import Unacked
from resilience.clock import Clock
from resilience.text import get_logger

logger = get_logger("resilience")

LOOK_SECONDS = 0.25
"""How often a worker checks the connections of others, while any worker holds a message."""
GONE_SECONDS = 1.0
"""A worker whose connection was closed this long ago, and that has no new one, is dead."""
SLOW_SECONDS = 1.0
"""A server that takes this long to answer may have kept other workers from reconnecting."""
WATCHED = 3
"""How many others each worker watches; as many watch it."""
WAKE_SECONDS = 0.05
"""Pause after the connection was closed: a server that closes each one at once must not make the
heartbeat spin."""
NO_PID = -1
"""Makes redis-py take the connection for another process's: it closes the socket, but does not shut
it down. So a duplicate of the descriptor keeps the connection open."""


class Peer(NamedTuple):
    """A worker's note of its connection.

    Attributes:
        name: The server's run id and the worker's number, with a colon between.
        connection: Id of the connection.
    """

    name: str
    connection: int


class Peers:
    """The connection of a worker's heartbeat, and those of the workers that it watches.

    Attributes:
        worker: A number that no other worker has.
    """

    def __init__(self, clock: Clock) -> None:
        """Prepare; `connect` connects."""
        self.worker = str(uuid4().int % 10**15)
        self._clock = clock
        self._client: redis.Redis | None = None
        self._socket: Any = None
        self._own: Peer | None = None  # of the present connection; None: it cannot be compared
        self._others: Sequence[Peer] = ()
        self._absent: dict[Peer, float] = {}  # since when their connections have been closed
        self._logged = False
        self._noted: Peer | None = None  # what the server has of this worker
        self._noted_descriptor: int | None = None  # a duplicate of that connection's
        _all.add(self)

    @property
    def lost(self) -> bool:
        """Whether the connection was closed or replaced, or has data that nobody waits for."""
        connection = self._client.connection if self._client else None
        if connection is None or self._socket is None:
            return False
        replaced = connection._sock is not self._socket  # noqa: SLF001 - there is no other way to it
        return replaced or self._is_closed() or has_spoken(self._socket)

    def _is_closed(self) -> bool:
        return self._socket is None or self._socket.fileno() < 0

    def connect(self, client: "redis.Redis") -> "redis.Redis":
        """Return a client with one connection from the pool of *client*, the same every time.

        Raises:
            redis.ConnectionError: The server does not answer.
        """
        if self._client is None:
            self._client = client.client()  # type: ignore[no-untyped-call]
        connection: Any = self._client.connection
        connection.pid = NO_PID
        if self.lost:
            with suppress(redis.ConnectionError):
                self._client.ping()  # reads the data, or notices the close
        connection.connect()
        if connection._sock is not self._socket:  # noqa: SLF001 - as above
            self._socket, self._own = connection._sock, None  # noqa: SLF001 - as above
            self._forget_others()
            try:
                self._own = self._identify(self._client)
            except ResponseError as error:
                self._give_up(str(error))
        return self._client

    def _identify(self, client: "redis.Redis") -> Peer | None:
        """Return what to note of the connection; None if the server does not see this very one."""
        number = client.client_id()
        run = client.info("server").get("run_id")
        if not run or not self._is_open(client.client_list(client_id=[number]), number):
            self._give_up("there is a proxy in between, or the address is translated", logging.INFO)
            return None
        return Peer(f"{run}:{self.worker}", number)

    def _is_open(self, clients: Sequence[dict[str, str]], number: int) -> bool:
        """Tell whether connection *number* is among *clients*, and its address is our end's."""
        own = [client.get("addr", "") for client in clients if client.get("id") == str(number)]
        return len(own) == 1 and _is_address(self._socket, own[0])

    def _give_up(self, why: str, level: int = logging.WARNING) -> None:
        """Compare no connections until there is a new one of our own."""
        self._own = None
        self._forget_others()
        if not self._logged:
            logger.log(
                level,
                "the broker does not show which connections are open (%s): what a killed worker "
                "held waits for the visibility timeout",
                why,
            )
            self._logged = True

    def _forget_others(self) -> None:
        self._others, self._absent = (), {}

    def meet(self, unacked: Unacked, *, again: bool) -> None:
        """Note our own connection, learn which others to watch, drop notes of other server runs.

        Args:
            unacked: Where connections are noted.
            again: Whether to do so even if the present connection has been noted already. An idle
                worker need not.
        """
        if self._client is None or (self._own == self._noted and not again):
            return
        try:
            if self._own is None:
                unacked.forget(self._client, [self._noted.name] if self._noted else [])
                self._keep_open(None)
                return
            found = unacked.meet(self._client, *self._own, WATCHED)
            self._keep_open(self._own)
            run = self._own.name.partition(":")[0]
            self._others = [Peer(*peer) for peer in found if peer[0].startswith(run)]
            unacked.forget(self._client, [name for name, _ in found if not name.startswith(run)])
        except ResponseError as error:
            self._give_up(str(error))

    def _keep_open(self, noted: Peer | None) -> None:
        """Keep the connection that is *noted* open, and release the one that was noted before.

        The client closes its connection when a command times out. Without the duplicate of its
        descriptor others would then take this worker for dead.
        """
        if noted != self._noted:
            before, self._noted = self._noted_descriptor, noted
            self._noted_descriptor = None if noted is None else os.dup(self._socket.fileno())
            if before is not None:
                os.close(before)

    def gone(self) -> Sequence[Peer]:
        """Return the watched workers whose connections have been closed for `GONE_SECONDS`.

        Raises:
            redis.ConnectionError: The server does not answer.
        """
        if self._client is None or self._own is None or not self._others:
            return ()
        began = self._clock.monotonic()
        numbers: list[Any] = [peer.connection for peer in (self._own, *self._others)]
        try:
            clients = self._client.client_list(client_id=numbers)
        except ResponseError as error:
            self._give_up(str(error))
            return ()
        ended = self._clock.monotonic()
        if ended - began > SLOW_SECONDS or not self._is_open(clients, self._own.connection):
            self._absent = {}
            return ()
        open_ids = {client.get("id") for client in clients}
        absent = [peer for peer in self._others if str(peer.connection) not in open_ids]
        self._absent = {peer: self._absent.get(peer, ended) for peer in absent}
        return [peer for peer, since in self._absent.items() if began - since >= GONE_SECONDS]

    @property
    def look_seconds(self) -> float:
        """Seconds until the next look at the connections of others."""
        now = self._clock.monotonic()
        left = [since + GONE_SECONDS - now for since in self._absent.values()]
        return min([LOOK_SECONDS, *(seconds for seconds in left if seconds > 0)])

    def wait(self, seconds: float) -> None:
        """Wait until the connection is closed, but no longer than *seconds*."""
        if self._is_closed():
            threading.Event().wait(seconds)
        elif has_spoken(self._socket, seconds):
            threading.Event().wait(WAKE_SECONDS)

    def leave(self) -> None:
        """Give up the connection. If it is noted it stays open until another one is noted."""
        if self._client is not None:
            connection: Any = self._client.connection
            connection.disconnect()
            connection.pid = os.getpid()  # else its place in the pool would be lost
            self._client.close()  # it returns the connection to the pool
        self._client = self._socket = self._own = None
        self._forget_others()

    def close(self) -> None:
        """Close the connection; `connect` makes a new one."""
        self.leave()
        self._keep_open(None)

    def abandon(self) -> None:
        """Close a forked child's copies, which would keep its dead parent's connection open."""
        if self._socket is not None:
            self._socket.close()
        self._keep_open(None)


def _is_address(sock: Any, seen: str) -> bool:  # noqa: ANN401 - a socket of any kind
    """Tell whether *seen*, a client's address by the server, is the address of our end."""
    if sock.family == socket.AF_UNIX:
        return f"{sock.getpeername()}:0" in seen  # Valkey 9 writes it in brackets
    host, port = sock.getsockname()[:2]
    return seen == (f"[{host}]:{port}" if ":" in host else f"{host}:{port}")


def _abandon_all() -> None:
    for peers in list(_all):
        peers.abandon()


_all: "weakref.WeakSet[Peers]" = weakref.WeakSet()
os.register_at_fork(after_in_child=_abandon_all)
