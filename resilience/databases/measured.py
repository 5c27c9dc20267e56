"""What a database server says of itself."""

from dataclasses import dataclass

from resilience.consistency import Position


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """How far a server was at some moment.

    Attributes:
        is_replica: Whether it only replays what another one writes.
        system: Which cluster it belongs to; empty if the database does not say.
        position: What its readers see at least.
        seen: What its readers have seen at most until then.
    """

    is_replica: bool
    system: str
    position: Position
    seen: Position
