"""The user, request or job on whose behalf is read and written."""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
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

    __slots__ = (
        "_keys",
        "_marks",
        "_measures",
        "_numbers",
        "_positions",
        "_unknown",
        "key",
        "sticky",
        "using",
    )

    def __init__(self, key: str | None = None, *, token: Token | None = None) -> None:
        """Begin with all that *token* stands for, if one is given."""
        self.key = key
        self.using: str | None = None
        self.sticky = False
        self._marks: dict[str, Mark] = {}
        self._positions: dict[str, Position] = {}
        self._keys: dict[str, Position] = {}
        self._numbers: dict[str, int] = {}
        self._unknown: dict[str, float] = {}
        self._measures: dict[str, Measure] = {}
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
        lag = max(map(_lag, self._marks.values()), default=INFINITE)
        return None if lag == INFINITE else lag

    def join(self, token: Token) -> None:
        """See from now on all that *token* stands for, too."""
        if self.key is None:
            self.key = token.session
        whole = self._known().merged(token)
        self._positions, self._keys = dict(whole.positions), dict(whole.keys)
        self._numbers, self._unknown = dict(whole.numbers), dict(whole.unknown)

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
        return Token(
            session=self.key,
            positions=dict(self._positions),
            keys=dict(self._keys),
            numbers=dict(self._numbers),
            unknown=dict(self._unknown),
        )

    def needed(self, source: str, keys: Iterable[str] = ()) -> Position:
        """Return what whoever answers must have replayed; for reads of *keys* alone, if named."""
        named = list(keys)
        if not named:
            return self._positions.get(source, NOWHERE)
        needed = NOWHERE
        for key in (ANY_KEY, *named):
            needed = needed.merged(self._keys.get(f"{source}/{key}", NOWHERE))
        return needed

    def is_unknown(self, source: str) -> bool:
        """Tell whether the position of something that was written or read is not known."""
        return source in self._unknown or EVERYWHERE in self._unknown

    def note(self, source: str, position: Position, keys: Iterable[str] = ()) -> None:
        """Note that the session has seen *source* at *position*, or has written *keys* there.

        A write that names no key is one to `ANY_KEY`. So are the oldest of too many keys.
        """
        self._positions[source] = self._positions.get(source, NOWHERE).merged(position)
        anything = f"{source}/{ANY_KEY}"
        for key in keys:
            name = f"{source}/{key}"
            self._keys[name] = self._keys.pop(name, NOWHERE).merged(position)
            while len(self._keys) >= KEYS_MAX:
                oldest = self._keys.pop(next(one for one in self._keys if one != anything))
                self._keys[anything] = self._keys.get(anything, NOWHERE).merged(oldest)

    def written(self) -> None:
        """Be told that what was noted last was committed."""

    def note_unknown(self, source: str, at: float) -> None:
        """Note that at fleet time *at* something was written or read, and nobody knows where."""
        self._unknown[source] = max(at, self._unknown.get(source, 0.0))
        if len(self._unknown) > SOURCES_MAX:
            oldest = min(self._unknown, key=lambda name: (name == EVERYWHERE, self._unknown[name]))
            self.note_unknown(EVERYWHERE, self._unknown.pop(oldest))

    def unknown_at(self, source: str) -> float:
        """Return the latest fleet time of what is unknown of *source*; 0: nothing is."""
        return max(self._unknown.get(source, 0.0), self._unknown.get(EVERYWHERE, 0.0))

    def note_known(self, source: str) -> None:
        """Note that what was unknown is covered by now."""
        self._unknown.pop(source, None)

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
        return self._numbers.get(source, 0)

    def note_number(self, source: str, number: int) -> None:
        """Note that the session knows of the write with this *number*."""
        if number > self._numbers.get(source, 0):
            self._numbers[source] = number

    def mark(self, mark: Mark) -> None:
        """Note that an answer may be older than it should be; the worst of each source is kept."""
        worst = self._marks.get(mark.source)
        if worst is None or _lag(mark) > _lag(worst):
            self._marks[mark.source] = mark


def _lag(mark: Mark) -> float:
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
