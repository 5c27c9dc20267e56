"""The user, request or job on whose behalf is read and written."""

import asyncio
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Final

from resilience.consistency.position import Position
from resilience.consistency.token import EVERYWHERE, KEYS_MAX, SOURCES_MAX, Token
from resilience.levels import Level

PRIMARY: Final = "primary"
ANY_KEY: Final = ""
NOWHERE: Final = Position()
INFINITE: Final = float("inf")

Measure = Callable[[], Position | None]
"""Asks a database how far it is; None: it did not say, and the session knows that."""

_current: ContextVar["ConsistentSession | None"] = ContextVar("consistent_session", default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """Why an answer may be older than it should be.

    Attributes:
        source: Name of the databases, or of the reader.
        reason: Why nobody better answered.
        lag_seconds: The answer shows everything that was committed so long ago; None: unknown.
    """

    source: str
    reason: str
    lag_seconds: float | None


class ConsistentSession:
    """What one user, request or job has written and seen, in this process.

    Its reads see its own writes, and never go back behind what it has seen. It belongs to one
    request or job. Two threads may share it; neither then sees what the other has not yet ended.

    Attributes:
        key: What tells users apart; None: a session of nobody in particular.
        using: `primary` lets every read go there.
        sticky: Lets reads that no replica can answer go to the primary at once, and all of them.
    """

    def __init__(self, key: str | None = None, *, token: Token | None = None) -> None:
        """Begin with all that *token* stands for, if one is given."""
        self.key = key
        self.using: str | None = None
        self.sticky = False
        self._marks: dict[str, Mark] = {}
        self._measures: dict[str, Measure] = {}
        self._seen = Token()
        self._lock = threading.Lock()
        if token is not None:
            self.join(token)

    @property
    def marks(self) -> Sequence[Mark]:
        """Why answers were older than they should be, the worst of each source; empty: none was."""
        return tuple(self._marks.values())

    @property
    def level(self) -> Level:
        """How good the answers were so far: FULL or STALE."""
        return Level.STALE if self._marks else Level.FULL

    @property
    def lag_seconds(self) -> float | None:
        """The greatest lag of all marked answers; None: unknown, or none was marked."""
        lag = max(map(lag_of, self._marks.values()), default=INFINITE)
        return None if lag == INFINITE else lag

    def join(self, token: Token) -> None:
        """See from now on all that *token* stands for, too."""
        if self.key is None:
            self.key = token.session
        self._see(token)

    def token(self) -> Token:
        """Return all that the session has written and seen.

        Databases that it has read from since they were last asked are asked how far they are.
        """
        while self._measures:
            source, measure = self._measures.popitem()
            position = measure()
            if position is not None:
                self.note(source, position)
        return self._known()

    async def token_async(self) -> Token:
        """Return the same; databases are asked without blocking the event loop.

        A measure of an AsyncSession runs in a greenlet of SQLAlchemy. One that is not asynchronous,
        and says so in an attribute of that name, runs in a thread.
        """
        while self._measures:
            source, measure = next(reversed(self._measures.items()))
            if getattr(measure, "asynchronous", True):
                from sqlalchemy.util import greenlet_spawn  # noqa: PLC0415 - only who needs it

                position = await greenlet_spawn(measure)
            else:
                position = await asyncio.to_thread(measure)
            if position is not None:
                self.note(source, position)
            if self._measures.get(source) is measure:
                del self._measures[source]
        return self._known()

    def _known(self) -> Token:
        return replace(self._seen, session=self.key)

    def _see(self, token: Token) -> None:
        with self._lock:
            seen = self._seen.merged(token)
            room = len(seen.keys) <= KEYS_MAX
            self._seen = seen if room else replace(seen, keys=_folded(seen.keys))

    def needed(self, source: str, keys: Iterable[str] = ()) -> Position:
        """Return what whoever answers must have replayed; for reads of *keys* alone, if named."""
        named = list(keys)
        if not named:
            return self._seen.positions.get(source, NOWHERE)
        needed = NOWHERE
        for key in (ANY_KEY, *named):
            needed = needed.merged(self._seen.keys.get(f"{source}/{key}", NOWHERE))
        return needed

    def is_unknown(self, source: str) -> bool:
        """Tell whether the position of something that was written or read is not known."""
        unknown = self._seen.unknown
        return source in unknown or EVERYWHERE in unknown

    def note(self, source: str, position: Position, keys: Iterable[str] = ()) -> None:
        """Note that the session has seen *source* at *position*, or has written *keys* there.

        A write that names no key is one to `ANY_KEY`; so are the oldest of too many keys.
        """
        written = {f"{source}/{key}": position for key in keys}
        self._see(Token(positions={source: position}, keys=written))

    def written(self) -> None:
        """Be told that what was noted last was committed."""

    def note_unknown(self, source: str, at: float) -> None:
        """Note that at fleet time *at* something was written or read, and nobody knows where."""
        self._see(Token(unknown={source: at}))

    def unknown_at(self, source: str) -> float:
        """Return the latest fleet time of what is unknown of *source*; 0: nothing is."""
        unknown = self._seen.unknown
        return max(unknown.get(source, 0.0), unknown.get(EVERYWHERE, 0.0))

    def note_known(self, source: str) -> None:
        """Note that what was unknown is covered by now."""
        with self._lock:
            others = {name: at for name, at in self._seen.unknown.items() if name != source}
            self._seen = replace(self._seen, unknown=others)

    def note_read(self, source: str, measure: Measure | None) -> None:
        """Note a read whose position *measure* finds out when it is needed; None: it is known."""
        if measure is None:
            self._measures.pop(source, None)
        else:
            self._measures[source] = measure

    def pending(self, source: str) -> Measure | None:
        """Return what finds out the position of the last read, if that is not known yet."""
        return self._measures.get(source)

    def number(self, source: str) -> int:
        """Return the highest number of a write to *source* that the session knows of; 0: none."""
        return self._seen.numbers.get(source, 0)

    def note_number(self, source: str, number: int) -> None:
        """Note that the session knows of the write with this *number*."""
        if number > self.number(source):
            self._see(Token(numbers={source: number}))

    def mark(self, mark: Mark) -> None:
        """Note that an answer may be older than it should be; the worst of each source is kept."""
        worst = self._marks.get(mark.source)
        if worst is None or lag_of(mark) > lag_of(worst):
            self._marks[mark.source] = mark


def _folded(keys: Mapping[str, Position]) -> Mapping[str, Position]:
    """Return *keys* with the oldest of each source as writes that name none."""
    by_age = sorted(keys, key=lambda key: max(at for _, at in keys[key].lines.values()))
    folded: dict[str, Position] = {}
    for left, name in zip(range(len(by_age), 0, -1), by_age, strict=True):
        is_new = left <= KEYS_MAX - SOURCES_MAX
        kept = name if is_new else f"{name.partition('/')[0]}/{ANY_KEY}"
        folded[kept] = folded.get(kept, NOWHERE).merged(keys[name])
    return folded


def lag_of(mark: Mark) -> float:
    """Return how bad *mark* is: its lag, infinite if that is unknown."""
    return INFINITE if mark.lag_seconds is None else mark.lag_seconds


def current_session() -> ConsistentSession | None:
    """Return the session that this code runs in, None if it runs in none."""
    return _current.get()


def enter(session: ConsistentSession | None) -> None:
    """Let the code that follows run in *session*; for hooks that come in pairs."""
    _current.set(session)


@contextmanager
def in_session(session: ConsistentSession) -> Iterator[ConsistentSession]:
    """Run a block in *session*; the one around it goes on afterwards."""
    token = _current.set(session)
    try:
        yield session
    finally:
        _current.reset(token)
