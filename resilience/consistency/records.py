"""What this process knows of recent writes of sessions."""

import os
import re
import threading
import weakref
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

from resilience.clock import Clock
from resilience.consistency.session import ConsistentSession
from resilience.consistency.token import TOKEN_SECONDS
from resilience.outcome import Outcome

LIFE_US: Final = int(TOKEN_SECONDS * 1e6)
"""A record is good for so long, in microseconds."""
ROUNDING_US: Final = 1_000
"""Times of what is unknown travel in whole milliseconds, so that one may be too early by less."""
WEIGHT_MAX: Final = 10_000
"""So much is kept in this process; what it learned longest ago of a session goes first."""
WEIGHT_BYTES: Final = 4_096
"""A session weighs one; so does a record, and one more for each so many bytes."""
VALUE, DELETED, VERSION, ASK = b"=", b"-", b"#", b"?"
"""What a record tells: the value; that there is none; its version; that only the primary knows."""
RECORD = re.compile(rb"(\d{1,16})\|(?:\?|([=#-])(-?\d{1,19})?:.*)", re.DOTALL)


class Record:
    """The last write of a session to one key.

    Attributes:
        raw: The record as writes.lua describes it; one that is malformed says `ASK`.
        number: Of the step of the write that made it.
        until: When it ends to count, in monotonic seconds.
        kind: What it tells.
        version: Version of the value, if the source has versions.
        answer: The answer that it makes, if that cannot be changed.
        weight: Its share of `WEIGHT_MAX`.
    """

    __slots__ = ("answer", "kind", "number", "raw", "until", "version", "weight")

    def __init__(self, raw: bytes, now_us: int, now: float) -> None:
        found = RECORD.fullmatch(raw)
        self.raw = raw
        self.number = now_us if found is None else int(found[1])
        self.until = now + min(LIFE_US, self.number + LIFE_US - now_us) / 1e6
        self.kind: bytes = ASK if found is None else found[2] or ASK
        self.version = None if found is None or found[3] is None else int(found[3])
        self.answer: Outcome[Any] | None = None
        self.weight = 0

    @property
    def text(self) -> str:
        """The value, encoded."""
        return self.raw.partition(b":")[2].decode(errors="surrogatepass")


class Known:
    """What is known of one session.

    Attributes:
        upto: All that was numbered up to here is known,
        floor: except that what was written up to here may be newer than a record, or have none.
        records: Its recent writes, by key.
    """

    __slots__ = ("floor", "records", "upto")

    def __init__(self, floor: int = 0) -> None:
        self.upto, self.floor = 0, floor
        self.records: dict[str, Record] = {}


_NOTHING: Final = Known()


class Records:
    """Recent writes of sessions to one source: what the store keeps, as far as it is known here.

    A session's number says how much must be known before any of it counts. Numbers and times are
    microseconds of the store's clock. A hit takes no lock. Safe with threads, greenlets and forks.
    """

    def __init__(self, source: str, clock: Clock, *, shared: bool) -> None:
        """Know of nothing; *shared*: other processes write, too, and meet in the store."""
        self._source = source
        self._monotonic = clock.monotonic
        self._least = int(shared)
        self._sessions: OrderedDict[str | None, Known] = OrderedDict()
        self._weight = self._forgotten = 0
        # Until the store has told its time, the host's; read once, so that it cannot jump.
        self._offset = int((clock.now() - clock.monotonic()) * 1e6)
        self._lock = threading.RLock()
        this = weakref.ref(self)
        os.register_at_fork(after_in_child=lambda: _renew_lock(this()))

    def is_behind(self, session: ConsistentSession) -> bool:
        """Tell whether the session may have written what this process does not know."""
        return not self._upto(session) >= session.number(self._source) >= self._least

    def look(self, session: ConsistentSession, key: str) -> tuple[Record | None, bool]:
        """Return the record of *key*, and whether there may be a later write that is not known.

        Then a record says `ASK`.
        """
        known, now = self._sessions.get(session.key, _NOTHING), self._monotonic()
        oldest = now * 1e6 + self._offset - LIFE_US
        behind = not known.upto >= session.number(self._source) >= self._least
        lost = session.unknown_at(self._source)
        floor = max(known.floor, lost * 1e6 + ROUNDING_US) if lost else known.floor
        unknown = behind or floor > oldest
        record = known.records.get(key)
        if record is None or record.until <= now:
            return None, unknown
        # What was lost had been written by then: a later record is the last write all the same.
        sure = record.number > floor and not behind
        return record if sure else self._record(ASK), unknown

    def learn(self, session: ConsistentSession, sent: int, reply: Sequence[Any]) -> None:
        """Take what the store keeps of a session, which was asked when it knew of number *sent*."""
        now, number, lost, fields = reply
        with self._lock:
            self._offset = now - int(self._monotonic() * 1e6)
            upto = max(number, min(sent, now), 1)
            if self._upto(session) < upto:  # else this process knows of more by now
                known = self._renew(session, sent if number < sent else lost)
                for name, raw in zip(fields[::2], fields[1::2], strict=True):
                    if name.startswith(b"k:"):
                        with suppress(UnicodeDecodeError):  # no reader wrote it
                            self._put(known, name[2:].decode(errors="surrogatepass"), raw)
                known.upto = upto
                self._trim()
            session.note_number(self._source, max(number, 1))

    def apply(self, session: ConsistentSession, key: str, sent: int, reply: Sequence[Any]) -> None:
        """Take the store's answer to a step of a write, sent when the session knew of *sent*."""
        now, number, before, raw = reply[:4]
        with self._lock:
            self._offset = now - int(self._monotonic() * 1e6)
            session.note_number(self._source, number)
            known = self._sessions.get(session.key, _NOTHING)
            if before < max(sent, 1):  # the store keeps nothing else, or has lost what it kept
                known = self._renew(session, sent)
                known.upto = before
            if known.upto == before:
                self._put(known, key, raw)
                known.upto = number
                self._sessions.move_to_end(session.key)
                self._trim()
            else:
                known.upto = 0  # another process has written: the store must be asked

    def miss(self, session: ConsistentSession, key: str) -> None:
        """Note that the store has not answered to a step of a write: others do not know of it."""
        with self._lock:
            known = self._sessions.get(session.key) or self._renew(session, 0)
            # Numbers may be ahead of the time, if the store's clock was set back.
            latest = max(known.upto, session.number(self._source), self._now())
            session.note_unknown(self._source, latest / 1e6)
            known.floor = max(known.floor, latest)
            self._put(known, key, ASK)
            self._trim()

    def step(
        self, session: ConsistentSession, key: str, own: bytes = b"", raw: bytes = b""
    ) -> Sequence[Any]:
        """Do what writes.lua does, for a process that has no store."""
        with self._lock:
            known, sent = self._sessions.get(session.key, _NOTHING), session.number(self._source)
            number = max(sent, known.upto, self._now() - 1) + 1
            old = known.records.get(key) or self._record(b"%d|?" % self._forgotten)
            is_open = old.kind == ASK and old.until > self._monotonic()
            raw = raw if old.raw == own else b"|?"
            raw = b"%d%b" % (number, raw) if raw.startswith(b"|") else raw
            reply = self._now(), number, known.upto, raw, b"" if is_open else raw, old.raw
            self.apply(session, key, sent, reply)
            return reply

    def _now(self) -> int:
        return int(self._monotonic() * 1e6) + self._offset

    def _upto(self, session: ConsistentSession) -> int:
        return self._sessions.get(session.key, _NOTHING).upto

    def _record(self, raw: bytes) -> Record:
        return Record(raw, self._now(), self._monotonic())

    def _renew(self, session: ConsistentSession, floor: int) -> Known:
        """Begin anew with what is known of a session; what was in doubt stays so."""
        known = Known(max(floor, self._forget(session.key).floor))
        self._sessions[session.key] = known
        self._weight += 1
        return known

    def _forget(self, key: str | None) -> Known:
        known = self._sessions.pop(key, _NOTHING)
        if known is not _NOTHING:
            self._weight -= 1 + sum(record.weight for record in known.records.values())
        return known

    def _put(self, known: Known, key: str, raw: bytes) -> None:
        old, record = known.records.get(key), self._record(raw)
        record.weight = 1 + (len(key) + len(raw)) // WEIGHT_BYTES
        self._weight += record.weight - (0 if old is None else old.weight)
        known.records[key] = record

    def _trim(self) -> None:
        while self._weight > WEIGHT_MAX:
            gone = self._forget(next(iter(self._sessions))).records.values()
            opened = (record.number for record in gone if record.kind == ASK)
            self._forgotten = max(self._forgotten, *opened, 0)


def _renew_lock(records: Records | None) -> None:
    if records is not None:
        records._lock = threading.RLock()  # noqa: SLF001 - another thread may have held it at the fork
