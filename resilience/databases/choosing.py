"""Which server answers a read."""

import random
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from sqlalchemy import Connection
from sqlalchemy.util import await_only

from resilience.budget import current_budget
from resilience.consistency import ConsistentSession, Mark, Position
from resilience.consistency.errors import DatabaseUnavailableError
from resilience.databases.measured import Measured
from resilience.databases.server import UNREACHABLE, Server, why_unreachable
from resilience.databases.servers import Servers
from resilience.errors import retry_after_of
from resilience.events import ReadFellBack, ReadStale

POLL_SECONDS: Final = 0.005
BEHIND: Final = "it has not replayed what this session wrote or saw"
UNKNOWN: Final = "nobody knows where what this session wrote or saw is"
DID: Final = "resilience_did"
"""Where a pooled connection keeps what its server said last when that was good enough."""
_dice = random.Random()  # noqa: S311 - which of equal replicas


@dataclass(frozen=True, slots=True)
class Candidate:
    """A replica that was asked and cannot answer as it should.

    Attributes:
        server: Which one.
        connection: To it, open.
        measured: What it said.
        never: Why it cannot, however long it is waited for; None: it is only behind.
    """

    server: Server
    connection: Connection
    measured: Measured
    never: str | None


class Choice:
    """Chooses who answers the reads of one transaction, on the connection that then reads."""

    def __init__(
        self,
        databases: Servers,
        session: ConsistentSession | None,
        keys: tuple[str, ...],
        *,
        asynchronous: bool,
    ) -> None:
        """Choose for *session*, which may read *keys* alone."""
        self._databases = databases
        self._session = session
        self._keys = keys
        self._asynchronous = asynchronous
        self._reasons: list[str] = []

    @property
    def needed(self) -> Position:
        """What whoever answers must have replayed."""
        if self._session is None:
            return Position()
        return self._session.needed(self._databases.name, self._keys)

    @property
    def is_unknown(self) -> bool:
        """Whether nobody knows what that is."""
        return self._session is not None and self._session.is_unknown(self._databases.name)

    def choose(self) -> tuple[Server, Connection]:
        """Return who answers, and the connection to read on.

        Raises:
            DatabaseUnavailableError: Nobody does.
        """
        databases = self._databases
        databases.keep_up(asynchronous=self._asynchronous)
        if self.is_unknown:
            self._find_out(databases.primary)
        behind: list[Candidate] = []
        chosen: Connection | None = None
        try:
            if not databases.replicas:
                server, chosen = self._primary(None)
                return server, chosen
            if not self.is_unknown:
                for server in self._order():
                    chosen = self._try(server, behind)
                    if chosen is not None:
                        return server, chosen
                waited = self._wait(behind)
                if waited is not None:
                    server, chosen = waited.server, waited.connection
                    return server, chosen
            server, chosen = self._otherwise(behind)
            return server, chosen
        finally:
            for candidate in behind:
                if candidate.connection is not chosen:
                    candidate.connection.close()

    def _order(self) -> list[Server]:
        """Return the replicas in random order; first the one that the session has read from."""
        servers = list(self._databases.replicas)
        last = self._last()
        _dice.shuffle(servers)
        if last in servers:
            servers.remove(last)
            servers.insert(0, last)
        return servers

    def _last(self) -> Any:  # noqa: ANN401 - a server, if any
        session = self._session
        pending = None if session is None else session.pending(self._databases.name)
        return getattr(pending, "server", None)

    def _find_out(self, server: Server) -> None:
        """Let the session find out what it has seen, unless that was on *server*, too."""
        name, session = self._databases.name, self._session
        pending = None if session is None else session.pending(name)
        if session is None or pending is None:
            return
        if self._last() is not server or self.is_unknown:
            session.note_read(name, None)
            position = pending()
            if position is not None:
                session.note(name, position)

    def _try(self, server: Server, behind: list[Candidate]) -> Connection | None:
        """Return a connection to a replica that can answer; if it cannot, it may be *behind*."""
        try:
            connection = server.connect(asynchronous=self._asynchronous)
        except UNREACHABLE as error:
            self._note_down(server, error)
            return None
        try:
            self._find_out(server)
            if self.is_unknown:
                connection.close()
                return None
            if self._is_known_to_do(server, connection):
                return connection
            measured = server.measure(connection)
        except UNREACHABLE as error:
            self._note_down(server, error)
            connection.close()
            return None
        except BaseException:
            connection.close()
            raise
        never = self._databases.history.why_not(measured)
        why = never or self._behind(server, measured)
        if why is None:
            connection.info[DID] = measured
            return connection
        self._reasons.append(f"{server.name}: {why}")
        behind.append(Candidate(server, connection, measured, never))
        return None

    def _is_known_to_do(self, server: Server, connection: Connection) -> bool:
        """Tell whether what the server said on *connection* a moment ago is enough."""
        known = server.known(connection)
        if known is None:
            return False
        measured, at = known
        return (
            connection.info.get(DID) is measured
            and self._databases.clock.monotonic() - at <= self._databases.position_cache_seconds
            and measured.position.covers(self.needed)
        )

    def _behind(self, server: Server, measured: Measured) -> str | None:
        """Return why a replica must be waited for; None: it can answer."""
        if not measured.position.covers(self.needed):
            return BEHIND
        return self._databases.why_late(server, measured)

    def _wait(self, behind: list[Candidate]) -> Candidate | None:
        """Wait until the replica that is farthest has what is needed, as long as that may take."""
        databases, needed = self._databases, self.needed
        sound = [one for one in behind if one.never is None]
        if not sound:
            return None
        best = max(sound, key=lambda one: _progress(one.measured, needed))
        seconds = databases.wait_seconds
        if self._session is not None and self._session.wait_seconds is not None:
            seconds = min(seconds, self._session.wait_seconds)
        budget = current_budget()
        if budget is not None:
            seconds = min(seconds, budget.remaining())
        until = databases.clock.monotonic() + seconds
        lines = best.measured.position.lines
        numbers = [number for line, (number, _) in needed.lines.items() if line in lines]
        pause = POLL_SECONDS
        while (left := until - databases.clock.monotonic()) > 0:
            try:
                if len(numbers) != 1 or not best.server.wait(best.connection, numbers[0], left):
                    self._pause(min(pause, left))
                    pause *= 2
                measured = best.server.measure(best.connection)
            except UNREACHABLE as error:
                self._note_down(best.server, error)
                behind.remove(best)
                best.connection.close()
                return None
            if self._behind(best.server, measured) is None:
                return best
        return None

    def _pause(self, seconds: float) -> None:
        if self._asynchronous:
            await_only(_sleep(seconds))
        else:
            threading.Event().wait(seconds)

    def _otherwise(self, behind: list[Candidate]) -> tuple[Server, Connection]:
        """Return the primary, if it answers and may be asked; else the best of those *behind*."""
        databases = self._databases
        reason = "; ".join(self._reasons) or UNKNOWN
        usable = [one for one in behind if one.never is None]
        if not usable and self.is_unknown:
            usable = list(self._last_resort())
            behind += usable
        if databases.may_fall_back() or not usable:
            try:
                return self._primary(reason)
            except DatabaseUnavailableError as error:
                if not usable:
                    why = f"{error.reason}; {reason}"
                    raise DatabaseUnavailableError(
                        databases.name, why, error.retry_after
                    ) from error
                reason = f"{error.reason}; {reason}"
        else:
            reason = f"too many reads fall back to the primary; {reason}"
        best = max(usable, key=lambda one: _progress(one.measured, self.needed))
        self._mark(reason, databases.history.lag(best.measured.position, databases.fleet_time()))
        return best.server, best.connection

    def _last_resort(self) -> Iterator[Candidate]:
        """Yield replicas that were not asked, as nobody knows what the session has seen."""
        for server in self._databases.replicas:
            with suppress(*UNREACHABLE):
                connection = server.connect(asynchronous=self._asynchronous)
                try:
                    measured = server.measure(connection)
                except BaseException:
                    connection.close()
                    raise
                if self._databases.history.why_not(measured) is None:
                    yield Candidate(server, connection, measured, None)
                else:
                    connection.close()

    def _primary(self, reason: str | None) -> tuple[Server, Connection]:
        """Return the primary, for the *reason* that no replica answers."""
        databases = self._databases
        connection = databases.open_primary(asynchronous=self._asynchronous)
        primary = databases.primary
        if primary.has_positions and self.needed:
            known = primary.known(connection)
            measured = None if known is None else known[0]
            if measured is None or not measured.position.covers(self.needed):
                try:
                    measured = primary.measure(connection)
                except UNREACHABLE as error:
                    connection.close()
                    self._unreachable(error)
            if not measured.position.covers(self.needed):
                self._mark("what was written or seen before a failover may be lost", None)
        if reason is not None:
            databases.count_fallback()
            databases.announce(ReadFellBack(source=databases.name, reason=reason))
        return primary, connection

    def _unreachable(self, error: Exception) -> NoReturn:
        raise DatabaseUnavailableError(
            self._databases.name, f"primary: {why_unreachable(error)}", retry_after_of(error)
        ) from error

    def _note_down(self, server: Server, error: BaseException) -> None:
        self._reasons.append(f"{server.name}: {why_unreachable(error)}")

    def _mark(self, reason: str, lag: float | None) -> None:
        name = self._databases.name
        self._databases.announce(ReadStale(source=name, reason=reason, lag_seconds=lag))
        if self._session is not None:
            self._session.mark(Mark(source=name, reason=reason, lag_seconds=lag))


async def _sleep(seconds: float) -> None:
    import asyncio  # noqa: PLC0415 - an event loop runs, so it is there

    await asyncio.sleep(seconds)


def _progress(measured: Measured, needed: Position) -> int:
    """Return how far a server is, on the lines that are needed or on all."""
    lines = measured.position.lines
    reached = [number for line, (number, _) in lines.items() if not needed or line in needed]
    return max(reached, default=-1)
