"""The steps of reads and writes in which users see their own writes, whoever takes them."""

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import suppress
from functools import partial
from itertools import count
from typing import Any, Final, Generic, TypeVar

from resilience.clock import Clock, SystemClock
from resilience.consistency.errors import DatabaseUnavailableError, OwnWriteUnavailableError
from resilience.consistency.record import ASK, DELETED, LIFE_US, VALUE, VERSION, Record, Told
from resilience.consistency.records import Records
from resilience.consistency.session import PRIMARY, ConsistentSession, Mark
from resilience.consistency.sources import AnyPrimary, AnyReplica, Guard, Unguarded, Versioned
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
P = TypeVar("P", bound=AnyPrimary)
R = TypeVar("R", bound=AnyReplica)
Steps = Generator[Callable[[], Any], Any, T]
"""What a read or write does: it has functions called, is sent what they return, returns."""

VALUE_BYTES_MAX: Final = 64_000
"""Of a longer value, encoded, a record holds the version only."""
NAME_LENGTH_MAX: Final = 100
VERSION_LIMIT: Final = 2**63
OWN_WRITE: Final = "own write"
"""The source of an answer that is the user's recent write."""
_IMMUTABLE: Final = (str, int, float, bool, bytes, type(None))


class Reader(ABC, Generic[P, R]):
    """What both kinds of reader do; see `ConsistentReader`.

    Attributes:
        name: Which source.
    """

    def __init__(  # noqa: PLR0913 - options
        self,
        primary: P,
        replicas: Sequence[R] = (),
        *,
        name: str,
        store: Store | None = None,
        breaker: Guard | None = None,
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
            breaker: Through whose `call`, or `acall`, the primary is called.
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
        self._primary: P = primary
        self._replicas: list[R] = list(replicas)
        self._turn = count()
        self._guard: Guard = breaker or Unguarded()
        self._keep_values = keep_values
        self._not_done: tuple[type[Exception], ...] = (RejectedError, *not_done)
        self._dumps, self._loads = dumps, loads
        self._listeners = tuple(listeners)
        clock = clock or SystemClock()
        self._monotonic = clock.monotonic
        self._records = Records(self._source, clock, shared=store is not None)
        self._writes = None if store is None else WriteStore(store, self._source, life_us=LIFE_US)

    @abstractmethod
    def _call(self, function: Callable[..., Any], *args: object) -> Any:  # noqa: ANN401 - as it does
        """Call the primary."""

    @abstractmethod
    def _exchange(self, writes: WriteStore, *question: Any) -> Any:  # noqa: ANN401 - as it answers
        """Run an operation of the store."""

    def _hit(self, key: str, session: ConsistentSession | None) -> Outcome[Any] | None:
        if session is None or session.using == PRIMARY:
            return None
        record = self._records.hit(session, key)
        if record is None:
            return None
        return self._shown(record) if record.answer is None else record.answer

    def _shown(self, record: Record) -> Outcome[Any] | None:
        """Return the answer that *record* holds; None: it holds none that can be read."""
        value = None
        if record.kind == VALUE:
            try:
                value = self._loads(record.text.decode(errors="surrogatepass"))
            except Exception:  # noqa: BLE001 - a stranger's function, on what others wrote
                record.kind = ASK
        if record.kind not in (VALUE, DELETED):
            return None
        answer = Outcome(value=value, source=OWN_WRITE, dependency=self.name)
        if type(value) in _IMMUTABLE:  # else a caller might change what the next one is given
            record.answer = answer
        return answer

    def _reading(self, key: str, session: ConsistentSession | None) -> Steps[Outcome[Any]]:
        record, unknown = None, False
        if session is not None and session.key is not None and session.using != PRIMARY:
            if self._records.must_ask(session):
                sent, reply = yield from self._ask_store(session, "fetch")
                if reply is not None:
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
            cause = error
        else:
            return Outcome(value=_bare(found), dependency=self.name)
        reason = type(cause).__name__ + ("; recent writes are unknown" if unknown else "")
        stale = yield from self._replicated(key, session, record, reason)
        if stale is not None:
            return stale
        kind = DatabaseUnavailableError if record is None else OwnWriteUnavailableError
        raise kind(self.name, reason, retry_after_of(cause)) from cause

    def _replicated(
        self, key: str, session: ConsistentSession | None, record: Record | None, reason: str
    ) -> Steps[Outcome[Any] | None]:
        """Return what a replica answers that shows the write of *record*, if there is one."""
        if session is not None and session.using == PRIMARY:
            return None
        if record is not None and (record.kind == ASK or record.version is None):
            return None
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
            if record is None or _shows(found, record.version):
                # It was measured before the read, so that it cannot be less than the true one.
                lag = None if lag is None else lag + self._monotonic() - began
                mark = Mark(source=self.name, reason=reason, lag_seconds=lag)
                return self._stale(_bare(found), f"replica {number}", session, mark)
        return None

    def _stale(
        self, value: object, source: str, session: ConsistentSession | None, mark: Mark
    ) -> Outcome[Any]:
        if session is not None:
            session.mark(mark)
        reason, lag = mark.reason, mark.lag_seconds
        event = ReadStale(source=self.name, reason=reason, lag_seconds=lag)
        announce(event, self._listeners)
        level, name = Level.STALE, self.name
        return Outcome(
            value=value, level=level, reason=reason, source=source, age=lag, dependency=name
        )

    def _writing(
        self, key: str, session: ConsistentSession | None, told: Told, write: Callable[[], Any]
    ) -> Steps[Any]:
        """Write through: note that it begins, write, note how it ended.

        Whatever happens in between leaves a note that only the primary knows the value.
        """
        if session is None or session.key is None:
            return (yield write)
        records, name = self._records, key.encode(errors="surrogatepass")
        ticket = records.begin(session, key, *(yield from self._ask_store(session, "begin", name)))
        try:
            version = yield write
        except self._not_done:
            answer = yield from self._ask_store(session, "abort", name, ticket.number)
            records.abort(session, ticket, *answer)
            raise
        if type(version) is int and abs(version) < VERSION_LIMIT:
            told = told._replace(version=version)
        overlapped = int(records.overlapped(session, ticket))
        finish = "finish", name, ticket.number, told.payload(), overlapped
        records.end(session, ticket, *(yield from self._ask_store(session, *finish)), told)
        return version

    def _ask_store(
        self, session: ConsistentSession, *operation: bytes | int | str
    ) -> Steps[tuple[int, list[Any] | None]]:
        """Return the number that the store is told, and its answer; None: there is none."""
        sent, reply = session.number(self._source), None
        if self._writes is not None:
            with suppress(StoreUnavailableError):
                reply = yield partial(self._exchange, self._writes, session.key, sent, *operation)
        return sent, reply

    def _told(self, value: object) -> Told:
        """Return what the record of a write of *value* tells."""
        if self._keep_values:
            with suppress(Exception):  # a value that cannot be encoded can be written
                text = self._dumps(value).encode(errors="surrogatepass")
                if len(text) <= VALUE_BYTES_MAX:
                    return Told(VALUE, None, text)
        return Told(VERSION)

    def _deleted(self) -> Told:
        return Told(DELETED if self._keep_values else VERSION)


def _bare(found: object) -> object:
    return found.value if isinstance(found, Versioned) else found


def _shows(found: object, version: int | None) -> bool:
    """Tell whether what was *found* is what a write returned *version* for, or newer."""
    return version is None or (isinstance(found, Versioned) and found.version >= version)


def _lag(replica: object) -> Steps[float | None]:
    measure = getattr(replica, "lag_seconds", None)
    if measure is None:
        return None
    try:
        lag = yield measure
    except Exception:  # noqa: BLE001 - whatever a stranger's replica raises, its lag is unknown
        return None
    return float(lag) if isinstance(lag, (int, float)) and 0 <= lag < math.inf else None
