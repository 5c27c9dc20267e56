"""What this process knows of recent writes of sessions."""

import os
import threading
import uuid
import weakref
from collections import OrderedDict
from collections.abc import Sequence
from functools import partial
from typing import Any, Final

from resilience.clock import Clock
from resilience.consistency.record import ASK, LIFE_US, NOTHING, Record, Ticket, Told, read_record
from resilience.consistency.session import ConsistentSession
from resilience.consistency.token import TOKEN_SECONDS
from resilience.store.writes import KEYS_MAX

WEIGHT_MAX: Final = 10_000
"""So many records are kept in this process; the sessions used longest ago go first."""
WEIGHT_BYTES: Final = 4_096
"""A record weighs one, and one more for each so many characters of its key and value."""

_ALL: Final = 2**63


class Known:
    """What is known of one session; numbers as in writes.lua.

    Attributes:
        records: Its recent writes by key, the oldest first.
        upto: All that the store has numbered up to here is known.
        alone: The last write of this process that the store did not number.
        floor: What was written up to here may be newer than what is known.
        dropped: The newest record that went because there were too many.
    """

    __slots__ = ("alone", "dropped", "floor", "records", "upto")

    def __init__(self) -> None:
        self.records: dict[str, Record] = {}
        self.upto = self.alone = self.floor = self.dropped = 0


class Records:
    """Recent writes of sessions to one source, as far as this process knows them.

    A hit takes no lock. Safe with threads, greenlets and across fork.
    """

    def __init__(self, source: str, clock: Clock, *, shared: bool) -> None:
        """Know of nothing; *shared*: other processes write, too, and meet in the store."""
        self._source = source
        self._monotonic = clock.monotonic
        self._least = int(shared)
        self._sessions: OrderedDict[str, Known] = OrderedDict()
        self._weight = 0
        self._lost, self._forgotten = 0.0, 0
        # Until the store has told its time, the host's; read once, so that it cannot jump.
        self._offset = int((clock.now() - clock.monotonic()) * 1e6)
        self.restart()
        os.register_at_fork(after_in_child=partial(_restart, weakref.ref(self)))

    def restart(self) -> None:
        """Go on in a forked child, which does not know what its parent writes from now on."""
        self._lock = threading.Lock()
        self._process = uuid.uuid4().hex[:8]

    def hit(self, session: ConsistentSession, key: str) -> Record | None:
        """Return the record to answer from if all that the session may have written is known."""
        known = self._sessions.get(session.key)  # type: ignore[arg-type] # None is not in it
        if known is None or not known.upto >= session.number(self._source) >= self._least:
            return None
        record = known.records.get(key)
        if record is None or record.ticket is not None or record.until <= self._monotonic():
            return None
        mine, elsewhere = session.unknown(self._source, self._process)
        if elsewhere or record.number <= known.floor or round(mine * 1e6) > known.alone:
            return None
        try:
            self._sessions.move_to_end(session.key)  # type: ignore[arg-type] # as above
        except KeyError:  # another thread has just evicted it
            return None
        return record

    def must_ask(self, session: ConsistentSession) -> bool:
        """Tell whether the store may know of writes of the session that this process does not."""
        known, number = self._sessions.get(str(session.key)), session.number(self._source)
        return known is None or number < self._least or number > known.upto

    def look(self, session: ConsistentSession, key: str) -> tuple[Record | None, bool]:
        """Return what is known of the last write to *key*, and whether there may be an unknown one.

        A record that says `ASK` is returned if this process cannot know the value.
        """
        with self._lock:
            known = self._sessions.get(str(session.key)) or Known()
            floor, oldest = self._floor(session, known), self._now() - LIFE_US
            record = known.records.get(key)
            if record is not None and record.lives(self._monotonic()):
                sure = record.ticket is None and record.number > floor
                return record if sure else Record(ASK), False
            return Record(ASK) if known.dropped > oldest else None, floor > oldest

    def learn(self, session: ConsistentSession, sent: int, reply: Sequence[Any]) -> None:
        """Take the store's records of a session, which was asked when it knew of number *sent*."""
        now, number, dropped, *fields = reply
        with self._lock:
            self._offset = now - int(self._monotonic() * 1e6)
            known = self._known(session)
            lost = self._note_lost(session, sent, number)
            if lost or number > known.upto:  # else this process knows of more by now
                self._replace(known, fields)
                known.dropped = dropped
                known.floor, known.alone = max(known.floor, known.alone), 0
            session.note_number(self._source, max(number, 1))
            known.upto = max(known.upto, number, min(sent, now), 1)
            self._trim(known)

    def begin(
        self, session: ConsistentSession, key: str, sent: int, reply: Sequence[int] | None
    ) -> Ticket:
        """Note that a write to *key* begins: from now on, only the primary knows the value.

        *reply* is the store's, None if it did not answer, and *sent* the number that it was told.
        """
        with self._lock:
            now, known = self._monotonic(), self._known(session)
            ticket = Ticket(key, 0 if reply is None else reply[1], now + TOKEN_SECONDS)
            self._number(session, sent, reply)
            record = known.records.pop(key, None)
            if record is None:
                record, overlaps = Record(), self._lost > now
                self._weight += record.weight
            else:
                overlaps = record.ticket is not None and record.ticket.until > now
            if overlaps:
                record.held = ticket.until
            if record.until <= now:
                record.settle(0, NOTHING)
            record.ticket = ticket
            known.records[key] = record
            self._trim(known)
            return ticket

    def overlapped(self, session: ConsistentSession, ticket: Ticket) -> bool:
        """Tell whether another write of this process to the key may come after this one."""
        known = self._sessions.get(str(session.key))
        record = known and known.records.get(ticket.key)
        return not record or record.ticket is not ticket or record.held > self._monotonic()

    def end(
        self,
        session: ConsistentSession,
        ticket: Ticket,
        sent: int,
        reply: Sequence[int] | None,
        told: Told,
    ) -> None:
        """Note that a write was done; *told* is what its record tells."""
        with self._lock:
            now, known = self._monotonic(), self._known(session)
            overlapped = self.overlapped(session, ticket)
            number = self._number(session, sent, reply)
            record = known.records.pop(ticket.key, None)
            self._weight -= 0 if record is None else record.weight
            record = record or Record()
            if overlapped:
                record.held = now + TOKEN_SECONDS
            counts = not overlapped and (reply is None or reply[3] == 1)
            record.settle(number, *(told if counts else Told(ASK)))
            record.until = now + TOKEN_SECONDS
            if record.ticket is ticket:
                record.ticket = None
            self._put(known, ticket.key, record)
            self._trim(known)

    def abort(
        self, session: ConsistentSession, ticket: Ticket, sent: int, reply: Sequence[int] | None
    ) -> None:
        """Note that a write was not done: what was known of the key counts again."""
        with self._lock:
            known = self._known(session)
            record = known.records.get(ticket.key)
            if ticket.number and reply is None:
                return  # the store, and so everybody else, takes it for one that may be done
            if reply is not None:
                self._number(session, sent, reply)
            if record is not None and record.ticket is ticket:
                record.ticket = None
                if record.held > self._monotonic():
                    record.settle(record.number, ASK)
                elif record.kind == NOTHING:
                    self._weight -= known.records.pop(ticket.key).weight

    def _number(self, session: ConsistentSession, sent: int, reply: Sequence[int] | None) -> int:
        """Return the number of a step of a write, which the session knows of from now on."""
        known = self._known(session)
        if reply is None:
            return self._number_alone(session, known)
        now, number, before = reply[:3]
        self._offset = now - int(self._monotonic() * 1e6)
        self._note_lost(session, sent, before)
        session.note_number(self._source, number)
        if known.upto >= before:
            known.upto = max(known.upto, number)
        return number

    def _number_alone(self, session: ConsistentSession, known: Known) -> int:
        """Return a number for a write that the store cannot tell others of: the session does.

        Others do not know what was written, so that for a while they cannot be sure of any record.
        """
        floor = self._floor(session, known)
        unknown = int(max(session.unknown(self._source, self._process)) * 1e6)
        highest = max(known.upto, known.alone, self._now(), session.number(self._source), unknown)
        number = (highest // 1_000 + 1) * 1_000  # it travels in milliseconds
        known.floor, known.alone = max(known.floor, min(floor, number - 1)), number
        session.note_unknown(f"{self._source}@{self._process}", number / 1e6)
        return number

    def _note_lost(self, session: ConsistentSession, sent: int, found: int) -> bool:
        """Note that the store lost records, if it *found* a lower number than the session's."""
        lost = sent > found and sent + LIFE_US > self._now()
        if lost:
            session.note_unknown(self._source, (sent // 1_000 + 1) / 1e3)
        return lost

    def _floor(self, session: ConsistentSession, known: Known) -> int:
        """Return the number up to which the session may have written what is not known here."""
        number = session.number(self._source)
        mine, elsewhere = (round(at * 1e6) for at in session.unknown(self._source, self._process))
        if number < self._least and not mine:
            return _ALL  # nobody has asked the store for it
        return max(
            known.floor,
            elsewhere,
            mine if mine > known.alone else 0,
            number if number > known.upto else 0,
        )

    def _now(self) -> int:
        """Return the store's time in microseconds."""
        return int(self._monotonic() * 1e6) + self._offset

    def _known(self, session: ConsistentSession) -> Known:
        known = self._sessions.get(str(session.key))
        if known is None:
            known = self._sessions[str(session.key)] = Known()
            known.floor = self._forgotten
            self._weight += 1
        self._sessions.move_to_end(str(session.key))
        return known

    def _replace(self, known: Known, fields: Sequence[bytes]) -> None:
        now, mine = self._monotonic(), known.records
        self._weight -= sum(record.weight for record in mine.values())
        known.records = {}
        for name, text in zip(fields[::2], fields[1::2], strict=True):
            key = name.decode(errors="surrogatepass")
            self._put(known, key, read_record(text, self._now(), now))
        for key, record in mine.items():
            if record.ticket is not None or record.held > now:
                if key not in known.records:
                    self._put(known, key, Record())
                one = known.records[key]
                one.ticket, one.held = record.ticket, record.held

    def _put(self, known: Known, key: str, record: Record) -> None:
        record.weight = 1 + (len(key) + len(record.text)) // WEIGHT_BYTES
        self._weight += record.weight
        known.records[key] = record

    def _trim(self, known: Known) -> None:
        while len(known.records) > KEYS_MAX:
            oldest = known.records.pop(next(iter(known.records)))
            self._weight -= oldest.weight
            known.dropped = self._now()
            self._note_open(oldest)
        while self._weight > WEIGHT_MAX and len(self._sessions) > 1:
            _, gone = self._sessions.popitem(last=False)
            self._weight -= 1
            self._forgotten = max(self._forgotten, gone.alone)
            for record in gone.records.values():
                self._weight -= record.weight
                self._note_open(record)

    def _note_open(self, gone: Record) -> None:
        """Remember that a write may still come of which nothing else is known any more."""
        self._lost = max(self._lost, gone.held, gone.ticket.until if gone.ticket else 0.0)


def _restart(this: "weakref.ref[Records]") -> None:
    records = this()
    if records is not None:
        records.restart()
