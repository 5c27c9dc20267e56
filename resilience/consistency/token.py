"""What must travel with a user or a job so that the next process reads what they have seen."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Annotated, Any, Final, TypeVar

from pydantic import BeforeValidator, Field, TypeAdapter

from resilience.consistency.position import LINES_MAX, Position, Time

TOKEN_SECONDS: Final = 30.0
"""A web user's token, and the record of a recent write, are good for so long."""
SOURCES_MAX: Final = 16
KEYS_MAX: Final = 100
NAME_LENGTH_MAX: Final = 200
EVERYWHERE: Final = "*"
"""Among what is unknown: every source. Whoever lost a token does not know what was in it."""

T = TypeVar("T")
Name = Annotated[str, Field(min_length=1, max_length=NAME_LENGTH_MAX, strict=True)]
Number = Annotated[int, Field(ge=0, lt=2**53, strict=True)]
Sources = Annotated[Mapping[Name, T], Field(max_length=SOURCES_MAX)]
Keys = Annotated[Mapping[Name, T], Field(max_length=KEYS_MAX)]
Sent = Annotated[Position, BeforeValidator(Position.from_json)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """All that a session has written and seen.

    Attributes:
        session: Whose it is: the key that tells users apart; None: nobody's.
        positions: By source: what whoever answers must have replayed.
        keys: By named key: where its last write is, for reads that name keys.
        numbers: By source: the highest number of a recent write (see `ConsistentReader`).
        unknown: By source: the fleet time of a write or read whose position nobody could find out.
            Then only the primary can answer, or the answer is marked. `EVERYWHERE` stands for all.
    """

    session: Name | None = None
    positions: Sources[Sent] = field(default_factory=dict)
    keys: Keys[Sent] = field(default_factory=dict)
    numbers: Sources[Number] = field(default_factory=dict)
    unknown: Sources[Time] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.positions or self.numbers or self.unknown or self.keys or self.session)

    def merged(self, other: "Token") -> "Token":
        """Return the least token that stands for both; the session is this one's, if it has one."""
        return Token(
            session=self.session if self.session is not None else other.session,
            positions=_merged(self.positions, other.positions),
            keys=_merged(self.keys, other.keys),
            numbers=_greatest(self.numbers, other.numbers),
            unknown=_greatest(self.unknown, other.unknown),
        )

    def since(self, oldest: float) -> "Token":
        """Return what of it became known at fleet time *oldest* or later."""
        recent = {name: one.since(oldest) for name, one in self.positions.items()}
        keys = {name: one.since(oldest) for name, one in self.keys.items()}
        return Token(
            session=self.session,
            positions={name: one for name, one in recent.items() if one},
            keys={name: one for name, one in keys.items() if one},
            numbers=self.numbers,
            unknown={name: at for name, at in self.unknown.items() if at >= oldest},
        )

    def bounded(self, most: float = math.inf) -> "Token":
        """Return what of it may travel: at most 16 sources with 16 lines each, and 100 keys.

        What became known last has room, *most* lines of all. The sources of the rest are unknown,
        so that nobody takes what was left out for seen.
        """
        groups: dict[bool, dict[str, dict[str, tuple[int, float]]]] = {False: {}, True: {}}
        unknown = dict(self.unknown)

        def lose(source: str, at: float) -> None:
            unknown[source] = max(at, unknown.get(source, 0.0))

        lines = [
            (at, is_key, name, line, number)
            for is_key, positions in ((False, self.positions), (True, self.keys))
            for name, position in positions.items()
            for line, (number, at) in position.lines.items()
        ]
        for place, (at, is_key, name, line, number) in enumerate(sorted(lines, reverse=True)):
            group, room = groups[is_key], KEYS_MAX if is_key else SOURCES_MAX
            has_room = len(name) <= NAME_LENGTH_MAX and (name in group or len(group) < room)
            if place < most and has_room and len(group.get(name, ())) < LINES_MAX:
                group.setdefault(name, {})[line] = number, at
            else:
                lose(name.partition("/")[0] if is_key else name, at)
        numbers = self.numbers
        newest = sorted(filter(_fits, numbers), key=numbers.__getitem__)[-SOURCES_MAX:]
        for name in numbers.keys() - newest:
            lose(EVERYWHERE, numbers[name] / 1e6)  # a number is the time of its write
        if len(unknown) > SOURCES_MAX or not all(map(_fits, unknown)):
            unknown = {EVERYWHERE: max(unknown.values())}
        positions, keys = (
            {name: Position(one) for name, one in group.items()} for group in groups.values()
        )
        session = self.session and self.session[:NAME_LENGTH_MAX]
        numbers = {name: numbers[name] for name in newest}
        return Token(
            session=session, positions=positions, keys=keys, numbers=numbers, unknown=unknown
        )

    def to_json(self, most: float = math.inf) -> dict[str, Any]:
        """Return the form in which what is `bounded` travels; empty parts are left out."""
        token = self.bounded(most)
        parts: dict[str, Any] = {
            "session": token.session,
            "positions": {name: one.to_json() for name, one in token.positions.items()},
            "keys": {name: one.to_json() for name, one in token.keys.items()},
            "numbers": dict(token.numbers),
            "unknown": {name: round(at, 3) for name, at in token.unknown.items()},
        }
        return {name: part for name, part in parts.items() if part}

    @classmethod
    def from_json(cls, document: Any) -> "Token":  # noqa: ANN401 - checked
        """Return what `to_json` wrote; fields of other releases are left out.

        Raises:
            ValueError: It is something else.
        """
        return _reader().validate_python(document)


@cache
def _reader() -> TypeAdapter[Token]:
    return TypeAdapter(Token)


def _fits(name: str) -> bool:
    return 0 < len(name) <= NAME_LENGTH_MAX


def _merged(one: Mapping[str, Position], other: Mapping[str, Position]) -> Mapping[str, Position]:
    if not one or not other:
        return one or other
    merged = {**one}
    for name, position in other.items():
        merged[name] = merged.get(name, position).merged(position)
    return merged


def _greatest(one: Mapping[str, Any], other: Mapping[str, Any]) -> Mapping[str, Any]:
    if not one or not other:
        return one or other
    return {name: max(one.get(name, 0), other.get(name, 0)) for name in {**one, **other}}
