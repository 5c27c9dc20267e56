"""How far a source's log must have been replayed for a read to see a write."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Annotated, Any, Final

from pydantic import AfterValidator, Field, TypeAdapter

LINES_MAX: Final = 16
"""A position that travels names at most so many lines."""
NUMBER_MAX: Final = 2**64 - 1
LINE_LENGTH_MAX: Final = 80


def _printable(text: str) -> str:
    if not text.isprintable():
        msg = "a line of a position is printable"
        raise ValueError(msg)
    return text


Line = Annotated[
    str, Field(min_length=1, max_length=LINE_LENGTH_MAX, strict=True), AfterValidator(_printable)
]
Number = Annotated[int, Field(ge=0, le=NUMBER_MAX, strict=True)]
Time = Annotated[float, Field(ge=0, lt=2**53, strict=True)]
"""Fleet time, in seconds."""


@dataclass(frozen=True, slots=True)
class Position:
    """A point in the logs of one source, as a vector: for each line of history, how far.

    Only numbers on the same line can be compared. PostgreSQL has a line per cluster and timeline,
    MariaDB one per domain and server, a key-value source one for its versions. After a failover the
    log goes on on another line, so a position from before it is covered by nobody: what it stands
    for may be lost.

    Attributes:
        lines: The number reached on each line, and the fleet time at which that became known.
    """

    lines: Annotated[Mapping[Line, tuple[Number, Time]], Field(max_length=LINES_MAX)] = field(
        default_factory=dict
    )

    @classmethod
    def at(cls, line: str, number: int, *, known: float = 0.0) -> "Position":
        """Return the position that is *number* on *line*, *known* since that fleet time."""
        return cls({line: (number, known)})

    def __bool__(self) -> bool:
        return bool(self.lines)

    def merged(self, other: "Position") -> "Position":
        """Return the least position that covers both: on each line the greater number."""
        if not self.lines or not other.lines:
            return self if self.lines else other
        merged = dict(self.lines)
        for line, reached in other.lines.items():
            merged[line] = max(reached, merged.get(line, reached))
        return Position(merged)

    def covers(self, other: "Position") -> bool:
        """Tell whether whoever has replayed up to here has replayed all that *other* names."""
        lines = self.lines
        return all(
            line in lines and lines[line][0] >= number for line, (number, _) in other.lines.items()
        )

    def since(self, oldest: float) -> "Position":
        """Return what of it became known at fleet time *oldest* or later."""
        return Position({line: one for line, one in self.lines.items() if one[1] >= oldest})

    def to_json(self) -> dict[str, list[float]]:
        """Return the form in which it travels: numbers as integers, times in whole milliseconds."""
        return {line: [number, round(at, 3)] for line, (number, at) in self.lines.items()}

    @classmethod
    def from_json(cls, document: Any) -> "Position":  # noqa: ANN401 - checked
        """Return what `to_json` wrote.

        Raises:
            ValueError: It is something else.
        """
        return _reader().validate_python({"lines": document})


@cache
def _reader() -> TypeAdapter[Position]:
    return TypeAdapter(Position)
