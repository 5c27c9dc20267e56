"""How far a source's log must have been replayed for a read to see a write."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

LINES_MAX: Final = 16
"""A position names at most so many lines; the oldest go first."""
NUMBER_MAX: Final = 2**64 - 1
LINE_LENGTH_MAX: Final = 80


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

    lines: Mapping[str, tuple[int, float]] = field(default_factory=dict)

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
        if len(merged) > LINES_MAX:
            newest = sorted(merged, key=lambda line: merged[line][1])[-LINES_MAX:]
            merged = {line: merged[line] for line in newest}
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
    def from_json(cls, document: object) -> "Position":
        """Return what `to_json` wrote.

        Raises:
            ValueError: It is something else.
        """
        if not isinstance(document, Mapping) or len(document) > LINES_MAX:
            msg = f"{document!r:.80} is no position"
            raise ValueError(msg)
        return cls({_line(line): _reached(reached) for line, reached in document.items()})


def _line(line: object) -> str:
    if not isinstance(line, str) or not 0 < len(line) <= LINE_LENGTH_MAX or not line.isprintable():
        msg = f"{line!r:.80} is no line of a position"
        raise ValueError(msg)
    return line


def _reached(reached: Any) -> tuple[int, float]:  # noqa: ANN401 - checked
    match reached:
        case [int() as number, int() | float() as at] if not isinstance(number, bool):
            if 0 <= number <= NUMBER_MAX and 0 <= at < NUMBER_MAX:
                return number, float(at)
    msg = f"{reached!r:.80} is no number of a position"
    raise ValueError(msg)
