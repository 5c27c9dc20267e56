"""The steps of reads and writes in which users see their own writes, whoever takes them."""

import json
import math
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import count
from typing import Any, ClassVar, Final, TypeVar

from resilience.breaker import Breaker, NoBreaker
from resilience.clock import Clock, SystemClock
from resilience.consistency.errors import DatabaseUnavailableError, OwnWriteUnavailableError
from resilience.consistency.records import DELETED, LIFE_US, VALUE, VERSION, Record, Records
from resilience.consistency.session import PRIMARY, ConsistentSession, Mark, current_session
from resilience.consistency.sources import Primary, Replica, Versioned
from resilience.errors import (
    ConfigurationError,
    RejectedError,
    StoreUnavailableError,
    is_bug,
    retry_after_of,
)
from resilience.events import Listener, ReadStale, announce
from resilience.levels import Level
from resilience.outcome import Outcome
from resilience.store.connection import Store
from resilience.store.writes import WriteStore

T = TypeVar("T")
Call = Callable[[], Any]
Steps = Generator[Call, Any, T]
"""What a read or write does: it has functions called, is sent what they return, returns."""

VALUE_BYTES_MAX: Final = 64_000
"""Of a longer value, encoded, a record holds the version only."""
NAME_LENGTH_MAX: Final = 100
VERSION_LIMIT: Final = 2**63
OWN_WRITE: Final = "own write"
"""The source of an answer that is the user's recent write."""
_IMMUTABLE: Final = (str, int, float, bool, bytes, type(None))


class Reader:
    """What both kinds of reader do; see `ConsistentReader`.

    Attributes:
        name: Which source.
    """

    _asynchronous: ClassVar = False

    def __init__(  # noqa: PLR0913 - options
        self,
        primary: Primary,
        replicas: Sequence[Replica] = (),
        *,
        name: str,
        store: Store | None = None,
        breaker: Breaker | None = None,
        keep_values: bool = True,
        not_done: Iterable[type[Exception]] = (),
        dumps: Callable[[Any], str] = json.dumps,
        loads: Callable[[str], Any] = json.loads,
        listeners: Iterable[Listener] = (),
        clock: Clock | None = None,
    ) -> None:
        """Prepare; nothing is connected.

        Args:
            primary: Where writes go, and reads as long as it answers.
            replicas: Who answers reads when the primary does not.
            name: The same in all processes; other readers and databases have other names.
            store: Where processes tell each other of recent writes; None: there is one process.
            breaker: Through what the primary is called.
            keep_values: Whether recent writes hold what was written. If not, the primary answers,
                or a replica that has the version that the write returned.
            not_done: Exceptions of a write that say that it was not done; refusals of this library
                (`RejectedError`) do already.
            dumps: Encodes values; what it cannot encode is not kept.
            loads: Decodes them.
            listeners: Who hears of `ReadStale`.
            clock: Where time comes from.

        Raises:
            ConfigurationError: *name* is empty, too long or not printable.
        """
        if not 0 < len(name) <= NAME_LENGTH_MAX or not name.isprintable():
            msg = f"name must be 1 to {NAME_LENGTH_MAX} printable characters, got {name!r:.120}"
            raise ConfigurationError(msg)
        self.name = name
        self._source = f"kv:{name}"  # databases may have the same name
        self._primary, self._replicas, self._turn = primary, list(replicas), count()
        self._guard = breaker or NoBreaker()
        self._call: Any = self._guard.acall if self._asynchronous else self._guard.call
        self._keep_values, self._dumps, self._loads = keep_values, dumps, loads
        self._not_done: tuple[type[Exception], ...] = (RejectedError, *not_done)
        self._listeners = tuple(listeners)
        clock = clock or SystemClock()
        self._monotonic = clock.monotonic
        self._records = Records(self._source, clock, shared=store is not None)
        writes = None if store is None else WriteStore(store, self._source, life_us=LIFE_US)
        self._ask: Any = writes and (writes.run_async if self._asynchronous else writes.run)

    def _hit(self, key: str, session: ConsistentSession | None) -> Outcome[Any] | None:
        if session is None or session.key is None or session.using == PRIMARY:
            return None
        record, _ = self._records.look(session, key)
        return None if record is None else record.answer or self._shown(record)

    def _shown(self, record: Record) -> Outcome[Any] | None:
        """Return the answer that *record* holds; None: it holds none that can be read."""
        value = None
        if record.kind == VALUE:
            try:
                value = self._loads(record.text)
            except Exception:  # noqa: BLE001 - a stranger's function, on what others wrote
                return None
        elif record.kind != DELETED:
            return None
        answer = Outcome(value=value, source=OWN_WRITE, dependency=self.name)
        if type(value) in _IMMUTABLE:  # else a caller might change what the next one is given
            record.answer = answer
        return answer

    def _reading(self, key: str, session: ConsistentSession | None) -> Steps[Outcome[Any]]:
        record, unknown = None, False
        if session is not None and session.key is not None and session.using != PRIMARY:
            if self._ask is not None and self._records.is_behind(session):
                sent = session.number(self._source)
                with suppress(StoreUnavailableError):
                    reply = yield partial(self._ask, session.key, sent)
                    self._records.learn(session, sent, reply)
            record, unknown = self._records.look(session, key)
            answer = None if record is None else self._shown(record)
            if answer is not None:
                return answer
        try:
            found = yield partial(self._call, self._primary.read, key)
        except Exception as error:
            if is_bug(error):
                raise
            reason = type(error).__name__ + ("; recent writes are unknown" if unknown else "")
            only_primary = session is not None and session.using == PRIMARY
            if not only_primary and (record is None or record.version is not None):
                stale = yield from self._replicated(key, session, record, reason)
                if stale is not None:
                    return stale
            after = retry_after_of(error)
            if record is not None:
                raise OwnWriteUnavailableError(self.name, key, reason, after) from error
            raise DatabaseUnavailableError(self.name, reason, after) from error
        return Outcome(value=_bare(found), dependency=self.name)

    def _replicated(
        self, key: str, session: ConsistentSession | None, record: Record | None, reason: str
    ) -> Steps[Outcome[Any] | None]:
        """Return what a replica answers, of the version of *record* or later, if there is one."""
        version = None if record is None else record.version
        turn = next(self._turn)
        for index in range(len(self._replicas)):
            number = (turn + index) % len(self._replicas)
            began = self._monotonic()
            lag = yield from _lag(self._replicas[number])
            try:
                found = yield partial(self._replicas[number].read, key)
            except Exception as error:
                if is_bug(error):
                    raise
                continue
            if version is None or (isinstance(found, Versioned) and found.version >= version):
                # It was measured before the read, so that it cannot be less than the true one.
                lag = None if lag is None else lag + self._monotonic() - began
                if session is not None:
                    session.mark(Mark(source=self.name, reason=reason, lag_seconds=lag))
                event = ReadStale(source=self.name, reason=reason, lag_seconds=lag)
                announce(event, self._listeners)
                answer = Outcome(value=_bare(found), level=Level.STALE, reason=reason)
                return replace(answer, source=f"replica {number}", age=lag, dependency=self.name)
        return None

    def _setting(
        self, key: str, value: object, session: ConsistentSession | None
    ) -> Steps[int | None]:
        kind, text = VERSION, b""
        if self._keep_values:
            with suppress(Exception):  # a value that cannot be encoded can be written
                encoded = self._dumps(value).encode(errors="surrogatepass")
                if len(encoded) <= VALUE_BYTES_MAX:
                    kind, text = VALUE, encoded
        return self._writing(key, session, partial(self._primary.write, key, value), kind, text)

    def _deleting(self, key: str, session: ConsistentSession | None) -> Steps[int | None]:
        kind = DELETED if self._keep_values else VERSION
        return self._writing(key, session, partial(self._primary.delete, key), kind, b"")

    def _writing(
        self, key: str, session: ConsistentSession | None, write: Call, kind: bytes, text: bytes
    ) -> Steps[int | None]:
        """Write through: note that it begins, write, note how it ended.

        Whatever happens in between leaves a note that only the primary knows the value.
        """
        session = session or current_session()
        if session is None or session.key is None:
            version: int | None = yield write
            return version
        own, before = yield from self._note(session, key)
        try:
            version = yield write
        except self._not_done:
            yield from self._note(session, key, own, before)
            raise
        number = b"%d" % version if type(version) is int and abs(version) < VERSION_LIMIT else b""
        yield from self._note(session, key, own, b"|%b%b:%b" % (kind, number, text))
        return version

    def _note(self, session: ConsistentSession, key: str, *own: bytes) -> Steps[Sequence[bytes]]:
        """Take a step of writes.lua, and return what a write must remember from its beginning."""
        if self._ask is None:
            return self._records.step(session, key, *own)[4:]
        sent, name = session.number(self._source), key.encode(errors="surrogatepass")
        try:
            reply: Sequence[Any] = yield partial(self._ask, session.key, sent, name, *own)
        except StoreUnavailableError:
            self._records.miss(session, key)
            return b"", b""
        self._records.apply(session, key, sent, reply)
        return reply[4:]


def _bare(found: object) -> object:
    return found.value if isinstance(found, Versioned) else found


def _lag(replica: object) -> Steps[float | None]:
    measure = getattr(replica, "lag_seconds", None)
    if measure is None:
        return None
    try:
        lag = yield measure
    except Exception:  # noqa: BLE001 - whatever a stranger's replica raises, its lag is unknown
        return None
    return float(lag) if isinstance(lag, (int, float)) and 0 <= lag < math.inf else None
