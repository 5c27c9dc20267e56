"""What must travel with a user or a job so that the next process reads what they have seen."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from resilience.consistency.position import Position

TOKEN_SECONDS: Final = 30.0
"""A web user's token, and the record of a recent write, are good for so long."""
SOURCES_MAX: Final = 16
KEYS_MAX: Final = 100
NAME_LENGTH_MAX: Final = 200
EVERYWHERE: Final = "*"
"""Among what is unknown: every source. Whoever lost a token does not know what was in it."""


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

    session: str | None = None
    positions: Mapping[str, Position] = field(default_factory=dict)
    keys: Mapping[str, Position] = field(default_factory=dict)
    numbers: Mapping[str, int] = field(default_factory=dict)
    unknown: Mapping[str, float] = field(default_factory=dict)

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

    def to_json(self) -> dict[str, Any]:
        """Return the form in which it travels; empty parts are left out."""
        parts: dict[str, Any] = {
            "session": self.session,
            "positions": {name: one.to_json() for name, one in self.positions.items()},
            "keys": {name: one.to_json() for name, one in self.keys.items()},
            "numbers": dict(self.numbers),
            "unknown": {name: round(at, 3) for name, at in self.unknown.items()},
        }
        return {name: part for name, part in parts.items() if part}

    @classmethod
    def from_json(cls, document: object) -> "Token":
        """Return what `to_json` wrote; fields of other releases are left out.

        Raises:
            ValueError: It is something else.
        """
        if not isinstance(document, Mapping):
            msg = f"{document!r:.80} is no token"
            raise ValueError(msg)  # noqa: TRY004 - as every other fault in it
        session = document.get("session")
        return cls(
            session=None if session is None else _name(session),
            positions=_read(document.get("positions"), SOURCES_MAX, Position.from_json),
            keys=_read(document.get("keys"), KEYS_MAX, Position.from_json),
            numbers=_read(document.get("numbers"), SOURCES_MAX, _number),
            unknown=_read(document.get("unknown"), SOURCES_MAX, _time),
        )


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


def _read(part: object, most: int, read: Any) -> dict[str, Any]:  # noqa: ANN401 - a reader of values
    if part is None:
        return {}
    if not isinstance(part, Mapping) or len(part) > most:
        msg = f"{part!r:.80} is no part of a token"
        raise ValueError(msg)
    return {_name(name): read(value) for name, value in part.items()}


def _name(name: object) -> str:
    if not isinstance(name, str) or not 0 < len(name) <= NAME_LENGTH_MAX:
        msg = f"{name!r:.80} is no name in a token"
        raise ValueError(msg)
    return name


def _number(number: object) -> int:
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < 2**53:
        msg = f"{number!r:.80} is no number of a write"
        raise ValueError(msg)
    return number


def _time(at: object) -> float:
    if isinstance(at, bool) or not isinstance(at, (int, float)) or not 0 <= at < 2**53:
        msg = f"{at!r:.80} is no time"
        raise ValueError(msg)
    return float(at)
