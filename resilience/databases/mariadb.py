"""How far a MariaDB server is: its global transaction IDs."""

from typing import Any, Final

from resilience.consistency import Position
from resilience.consistency.position import LINES_MAX
from resilience.databases.measured import Measured
from resilience.errors import ConfigurationError

MEASURE: Final = "SELECT @@GLOBAL.gtid_slave_pos, @@GLOBAL.gtid_binlog_pos, @@GLOBAL.read_only"


def measure(cursor: Any, known: float) -> Measured:  # noqa: ANN401 - of any driver
    """Ask how far the server is, at fleet time *known* or later.

    A server that has replicated and is read-only counts as a replica.
    """
    cursor.execute(MEASURE)
    replayed, written, read_only = cursor.fetchone()
    is_replica = bool(replayed) and bool(int(read_only))
    position = read_gtids(replayed if is_replica else f"{written},{replayed}", known)
    return Measured(
        is_replica=is_replica,
        system="",
        position=position,
        reached=position,
        seen=position,
        progress=position,
    )


def read_gtids(text: str, known: float) -> Position:
    """Return the position that a list of IDs stands for: a line per domain and server.

    The server is part of the line: one that takes over goes on with the same sequence, and what its
    predecessor wrote last may be missing in it.

    Raises:
        ConfigurationError: There are more lines than a position can name.
    """
    lines: dict[str, tuple[int, float]] = {}
    for gtid in filter(None, text.split(",")):
        domain, server, number = gtid.strip().split("-")
        lines[f"{domain}-{server}"] = (int(number), known)
    if len(lines) > LINES_MAX:
        msg = (
            f"MariaDB: {text!r:.200} names {len(lines)} pairs of domain and server, of which "
            f"a position can name {LINES_MAX}; use fewer gtid_domain_id"
        )
        raise ConfigurationError(msg)
    return Position(lines)


def wait(cursor: Any, version: tuple[int, ...], position: Position, seconds: float) -> bool:  # noqa: ANN401 - of any driver
    """Let a replica wait until it has replayed *position*; False: there is nothing to wait for."""
    del version  # all that have GTIDs can
    gtids = ",".join(f"{line}-{number}" for line, (number, _) in sorted(position.lines.items()))
    if gtids:
        cursor.execute("SELECT MASTER_GTID_WAIT(%s, %s)", (gtids, round(seconds, 3)))
        cursor.fetchall()
    return bool(gtids)
