"""Which server answers a read."""

import asyncio
import random
import threading
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection
from sqlalchemy.util import await_only

from resilience.budget import current_budget
from resilience.consistency import ConsistentSession, Mark, Position
from resilience.consistency.errors import DatabaseUnavailableError
from resilience.databases.last_read import LastRead
from resilience.databases.measured import Measured
from resilience.databases.server import UNREACHABLE, Server, why_unreachable
from resilience.databases.servers import Servers
from resilience.events import ReadFellBack, ReadStale, ReplicaLagging

POLL_SECONDS: Final = 0.005
BEHIND: Final = "it has not replayed what this session wrote or saw"
NO_TIMELINE: Final = (
    ", as far as is certain: it has no receiver, or the role lacks GRANT pg_read_all_stats"
)
UNKNOWN: Final = "nobody knows where what this session wrote or saw is"
_dice = random.Random()  # noqa: S311 - which of equal replicas


@dataclass(frozen=True, slots=True)
class Candidate:
    """A replica that was asked and may answer, if only what is marked.

    Attributes:
        server: Which one.
        connection: To it, open.
        measured: What it said.
        why: Why its answer must be marked; None: it need not be.
    """

    server: Server
    connection: Connection
    measured: Measured
    why: str | None


class Choice:
    """Chooses who answers the reads of one transaction, on the connection that then reads."""

    def __init__(
        self,
        databases: Servers,
        session: ConsistentSession,
        keys: tuple[str, ...],
        *,
        asynchronous: bool,
    ) -> None:
        """Choose for *session*, which may read *keys* alone."""
        self._databases = databases
        self._session = session
        self._keys = keys
        self._asynchronous = asynchronous
        self._opened: list[Connection] = []
        self._reasons: list[str] = []

    @property
    def needed(self) -> Position:
        """What whoever answers must have replayed."""
        return self._session.needed(self._databases.name, self._keys)

    @property
    def is_unknown(self) -> bool:
        """Whether nobody knows what that is."""
        return self._session.is_unknown(self._databases.name)

    def choose(self) -> tuple[Server, Connection]:
        """Return who answers, and the connection to read on.

        Raises:
            DatabaseUnavailableError: Nobody does.
        """
        self._databases.keep_up(asynchronous=self._asynchronous)
        chosen: Connection | None = None
        try:
            server, chosen = self._choose()
            return server, chosen
        finally:
            for connection in self._opened:
                if connection is not chosen:
                    connection.close()

    def primary(self) -> Connection:
        """Return a connection to the primary, for reads that may go nowhere else.

        Raises:
            DatabaseUnavailableError: It does not answer.
        """
        chosen: Connection | None = None
        try:
            _, chosen = self._primary(None)
            return chosen
        finally:
            for connection in self._opened:
                if connection is not chosen:
                    connection.close()

    def _choose(self) -> tuple[Server, Connection]:
        databases = self._databases
        if not databases.replicas:
            return self._primary(None)
        if self.is_unknown:
            # The last read may have been on the primary, whose position covers what is unknown.
            self.find_out(databases.primary)
        asked = []
        for server in self._order():
            found = None if self.is_unknown else self._ask(server)
            if found is not None and found.why is None:
                return found.server, found.connection
            if found is not None:
                asked.append(found)
        waited = self._wait([one for one in asked if one.why == BEHIND])
        if waited is not None:
            return waited.server, waited.connection
        return self._otherwise(asked)

    def _order(self) -> list[Server]:
        """Return the replicas in random order; first the one that the session has read from."""
        servers = list(self._databases.replicas)
        if len(servers) == 1:
            return servers
        last = self._last()
        _dice.shuffle(servers)
        if last in servers:
            servers.remove(last)
            servers.insert(0, last)
        return servers

    def _last(self) -> Any:  # noqa: ANN401 - a server, if any
        return getattr(self._session.pending(self._databases.name), "server", None)

    def find_out(self, server: Server, measured: Measured | None = None) -> None:
        """Let the session find out what it has seen, unless that was on *server*, too.

        If what that says is given, it must be the same server still, and not just its address.
        """
        name, session = self._databases.name, self._session
        pending = session.pending(name)
        if pending is None:
            return
        position: Position | None
        if self._last() is not server or self.is_unknown:
            session.note_read(name, None)
            position = pending()
        elif measured is not None and isinstance(pending, LastRead) and not pending.is_of(measured):
            session.note_read(name, None)
            position = pending.settled(measured)
        else:
            return
        if position is not None:
            session.note(name, position)

    def _open(self, server: Server) -> Connection:
        connection = server.connect(asynchronous=self._asynchronous)
        self._opened.append(connection)
        return connection

    def _ask(self, server: Server) -> Candidate | None:
        """Ask a replica, or take what it said on the same connection a moment ago.

        None: it is not reached, or may not answer at all.
        """
        databases = self._databases
        try:
            connection = self._open(server)
            known = server.last_measured(connection)
            self.find_out(server, None if known is None else known[0])
            if known is not None:
                measured, at = known
                is_fresh = databases.clock.monotonic() - at <= databases.position_cache_seconds
                if is_fresh and self._why_not(measured) is None:
                    return Candidate(server, connection, measured, None)
            measured = server.measure(connection)
            self.find_out(server, measured)
        except UNREACHABLE as error:
            self._reasons.append(f"{server.name}: {why_unreachable(error)}")
            return None
        never = databases.history.why_not(measured)
        why = never or self._why_not(measured)
        if why is not None:
            hint = NO_TIMELINE if why == BEHIND and measured.seen is None else ""
            self._reasons.append(f"{server.name}: {why}{hint}")
        if never is None and why not in {None, BEHIND, UNKNOWN}:
            self._announce_late(server, measured)
        return Candidate(server, connection, measured, why) if never is None else None

    def _announce_late(self, server: Server, measured: Measured) -> None:
        databases = self._databases
        lag = databases.history.lag(measured.position, databases.fleet_time())
        databases.announce(
            ReplicaLagging(source=databases.name, replica=server.name, lag_seconds=lag)
        )

    def _why_not(self, measured: Measured) -> str | None:
        """Return why the answer of a server that says this must be marked; None: it need not be."""
        never = self._databases.history.why_not(measured)
        if never is not None or self.is_unknown:
            return never or UNKNOWN
        if not measured.position.covers(self.needed):
            return BEHIND
        return self._databases.why_late(measured)

    def _wait(self, behind: list[Candidate]) -> Candidate | None:
        """Wait until the replica that is farthest has what is needed, as long as that may take."""
        if not behind:
            return None
        best, pause = self._farthest(behind), POLL_SECONDS
        monotonic = self._databases.clock.monotonic
        until = monotonic() + self._patience()
        while (left := until - monotonic()) > 0:
            try:
                if not best.server.wait(best.connection, self.needed, left):
                    self._pause(min(pause, left))
                    pause *= 2
                measured = best.server.measure(best.connection)
            except UNREACHABLE as error:
                self._reasons.append(f"{best.server.name}: {why_unreachable(error)}")
                return None
            if self._why_not(measured) is None:
                return best
        return None

    def _patience(self) -> float:
        """Return the seconds for which a replica that is behind is waited for."""
        budget, seconds = current_budget(), self._databases.wait_seconds
        if self._session.sticky:
            return 0.0
        return seconds if budget is None else min(seconds, budget.remaining())

    def _pause(self, seconds: float) -> None:
        if self._asynchronous:
            await_only(asyncio.sleep(seconds))
        else:
            threading.Event().wait(seconds)

    def _farthest(self, candidates: list[Candidate]) -> Candidate:
        """Return the candidate that is farthest on the lines that are needed, or on any."""
        needed = self.needed

        def reached(one: Candidate) -> int:
            lines = one.measured.position.lines
            wanted = [lines[line][0] for line in lines if not needed or line in needed.lines]
            return max(wanted, default=-1)

        return max(candidates, key=reached)

    def _otherwise(self, asked: list[Candidate]) -> tuple[Server, Connection]:
        """Return the primary, if it answers and may be asked; else the best replica, marked."""
        databases, reason = self._databases, "; ".join(self._reasons) or UNKNOWN
        unavailable, reached = None, bool(asked) or self.is_unknown
        if databases.share.allows() or self._session.sticky or not reached:
            try:
                return self._primary(reason)
            except DatabaseUnavailableError as error:
                unavailable, reason = error, f"{error.reason}; {reason}"
        else:
            reason = f"too many reads fall back to the primary; {reason}"
        if self.is_unknown:
            found = (self._ask(server) for server in databases.replicas)
            asked = [one for one in found if one is not None]
        if not asked and unavailable is None:
            return self._primary(reason)
        if not asked:
            after = None if unavailable is None else unavailable.retry_after
            raise DatabaseUnavailableError(databases.name, reason, after) from unavailable
        best = self._farthest(asked)
        self._mark(reason, databases.history.lag(best.measured.position, databases.fleet_time()))
        return best.server, best.connection

    def _primary(self, reason: str | None) -> tuple[Server, Connection]:
        """Return the primary, for the *reason* that no replica answers."""
        databases, primary = self._databases, self._databases.primary
        connection = databases.open_primary(asynchronous=self._asynchronous)
        self._opened.append(connection)
        known = primary.last_measured(connection)
        if databases.replicas:
            # It may be another one than when it or a replica answered.
            self.find_out(primary, None if known is None else known[0])
        needed = self.needed
        if primary.has_positions and needed:
            if known is None or not known[0].position.covers(needed):
                try:
                    known = primary.measure(connection), 0.0
                except UNREACHABLE as error:
                    raise databases.unavailable(error) from error
            if not known[0].position.covers(needed):
                self._mark("what was written or seen before a failover may be lost", None)
        if reason is not None:
            databases.share.fell_back()
            databases.announce(ReadFellBack(source=databases.name, reason=reason))
        return primary, connection

    def _mark(self, reason: str, lag: float | None) -> None:
        name = self._databases.name
        self._databases.announce(ReadStale(source=name, reason=reason, lag_seconds=lag))
        self._session.mark(Mark(source=name, reason=reason, lag_seconds=lag))
