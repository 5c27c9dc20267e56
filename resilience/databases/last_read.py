"""What a session has seen on the server that it read from last."""

from sqlalchemy import Connection
from sqlalchemy.exc import MissingGreenlet
from sqlalchemy.util.concurrency import in_greenlet

from resilience.consistency import Position
from resilience.consistency.session import ConsistentSession
from resilience.databases.measured import Measured
from resilience.databases.server import UNREACHABLE, Server
from resilience.databases.servers import Servers
from resilience.errors import ConfigurationError


class LastRead:
    """Finds out how far the server was that a session has read from, once that is needed.

    Attributes:
        server: Which one that was.
        floor: Where it was before the read: it has shown no less.
    """

    __slots__ = (
        "_connection",
        "_databases",
        "_session",
        "_started",
        "asynchronous",
        "floor",
        "server",
    )

    def __init__(
        self,
        databases: Servers,
        session: ConsistentSession,
        server: Server,
        connection: Connection,
        *,
        asynchronous: bool,
    ) -> None:
        """Remember that *session* has read from *server*, on *connection*."""
        known = server.last_measured(connection)
        measured = None if known is None else known[0]
        self.server = server
        self._connection = connection
        self.floor = Position() if measured is None else measured.reached
        self.asynchronous = asynchronous
        self._started = None if measured is None else measured.started
        self._databases = databases
        self._session = session

    def __call__(self) -> Position:
        """Ask the server how far it is; see `settled`.

        If it does not answer, what the session has seen is unknown, and no less than the floor.
        """
        try:
            measured = self._measure()
        except (*UNREACHABLE, ConfigurationError):
            self._session.note_unknown(self._databases.name, self._databases.fleet_time())
            return self.floor
        return self.settled(measured)

    def settled(self, measured: Measured) -> Position:
        """Return what the session has seen, now that its server's address says *measured*.

        If another server answers there by now, or the same one after a restart, it does not know
        how much was shown before.
        """
        databases, session = self._databases, self._session
        if self.server is databases.primary and measured.position.covers(
            session.needed(databases.name)
        ):
            session.note_known(databases.name)
        if measured.seen is None or not self.is_of(measured):
            session.note_unknown(databases.name, databases.fleet_time())
        # The server may be on another line of history than when it was read from.
        return self.floor.merged(measured.seen or measured.reached)

    def is_of(self, measured: Measured) -> bool:
        """Tell whether the server that was read from says *measured*: the same, not restarted."""
        return self._started == measured.started

    def precedes(self, server: Server, measured: Measured, primary: Server) -> bool:
        """Tell whether *server*, which says *measured*, has all that was shown.

        On one line of history the primary has all that a replica has.
        """
        if self.server is server:
            return self.is_of(measured)
        return server is primary and self.floor.lines.keys() <= measured.reached.lines.keys()

    def _measure(self) -> Measured:
        connection = self._connection
        if (in_greenlet() or not self.asynchronous) and self.server.can_ask(connection):
            return self.server.measure(connection)  # a pool may have no other one
        try:
            return self.server.connect_and_measure(asynchronous=self.asynchronous)
        except MissingGreenlet:  # called by a coroutine itself, or in another thread
            return self.server.connect_and_measure(asynchronous=False)
