"""What a database server says of itself."""

from dataclasses import dataclass

from resilience.consistency import Position


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """How far a server was at some moment.

    Attributes:
        is_replica: Whether it only replays what another one writes.
        system: Which cluster it belongs to; empty if the database does not say.
        position: Everything up to here is visible to its readers, on all lines that it was seen on.
        reached: The same, on the line that it is on now.
        seen: Nothing beyond here can have been visible yet; None: nobody knows where that is.
        progress: How far it has come, whatever line that is on; a server never goes back.
        started: When it started, by its own clock; 0: the database does not say.
        went_back: Whether it was farther before: then it is another server, or an old backup.
    """

    is_replica: bool
    system: str
    position: Position
    reached: Position
    seen: Position | None
    progress: Position
    started: float = 0.0
    went_back: bool = False

    def is_before(self, other: "Measured") -> bool:
        """Tell whether this server had come farther when it said *other*."""
        lines, theirs = self.progress.lines, other.progress.lines
        return any(line in theirs and lines[line][0] < theirs[line][0] for line in lines)

    def continues(self, other: "Measured") -> bool:
        """Tell whether a replica that had said *other* still shows it, on whatever line it is now.

        One that has started since may have been rewound, or made anew from another primary.
        """
        return self.is_replica and other.is_replica and self.started == other.started
