"""How far a PostgreSQL server is: its log sequence numbers, each with its cluster and timeline."""

from typing import Any, Final

from resilience.consistency import Position
from resilience.databases.measured import Measured
from resilience.errors import ConfigurationError

# `CASE` keeps functions that fail on the other kind of server from being called. The timeline of a
# primary is in the name of the file that it writes.
MEASURE: Final = """
SELECT r,
  (CASE WHEN r THEN coalesce(pg_last_wal_replay_lsn(), '0/0')
    ELSE pg_current_wal_insert_lsn() END - '0/0')::text,
  (CASE WHEN r THEN coalesce(pg_last_wal_receive_lsn(), '0/0') ELSE '0/0' END - '0/0')::text,
  (SELECT system_identifier FROM pg_control_system())::text,
  CASE WHEN r THEN (SELECT received_tli FROM pg_stat_wal_receiver)
    ELSE ('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::int END,
  extract(epoch FROM pg_postmaster_start_time())::text,
  c.timeline_id, (c.checkpoint_lsn - '0/0')::text,
  current_setting('wal_block_size')::int, pg_size_bytes(current_setting('wal_segment_size'))
FROM (SELECT pg_is_in_recovery() AS r) AS role, pg_control_checkpoint() AS c
"""
WAIT_VERSION: Final = (19,)
"""From this version on the server itself waits until it has replayed a position."""
SHORT_HEADER: Final = 24
LONG_HEADER: Final = 40
QUIET: Final = frozenset({0, 2})
"""Transaction states of libpq: idle, and in a transaction that waits for a statement."""
LSN_MAX: Final = 2**64 - 1


def measure(cursor: Any, known: float) -> Measured:  # noqa: ANN401 - of any driver
    """Ask how far the server is, at fleet time *known* or later.

    Which timeline a replica replays is certain only while it receives one, and only a role with
    `pg_read_all_stats` is told. Otherwise its position is that of its last restart point: beyond
    it, it may have followed another primary.
    """
    cursor.execute(MEASURE)
    row = cursor.fetchone()
    is_replica, text, received, system, timeline, started, restarted, restart, *sizes = row
    reached, line = int(text), f"{system}/{timeline}"
    if not is_replica:
        reached = before_header(reached, *sizes)
    position = Position.at(line, reached, known=known)
    seen: Position | None = Position.at(line, max(reached, int(received)), known=known)
    if timeline is None:
        position, seen = Position.at(f"{system}/{restarted}", int(restart), known=known), None
    return Measured(
        is_replica=bool(is_replica),
        system=system,
        position=position,
        reached=position,
        seen=seen,
        progress=Position.at(system, reached, known=known),
        started=float(started),
    )


def is_quiet(driver: Any) -> bool:  # noqa: ANN401 - a connection of any driver
    """Tell whether a statement may run on a connection: no other does, and none has failed."""
    status = getattr(getattr(driver, "info", None), "transaction_status", None)
    return status in QUIET


def before_header(lsn: int, block: int, segment: int) -> int:
    """Return where a record that ended before *lsn* ended, if a page header lies between.

    The next record will begin behind the header of its page. No replica gets there before that
    record is written, which on an idle primary may take long.
    """
    offset = lsn % segment
    if offset == LONG_HEADER:
        return lsn - LONG_HEADER
    return lsn - SHORT_HEADER if offset % block == SHORT_HEADER and offset > block else lsn


def wait(cursor: Any, version: tuple[int, ...], position: Position, seconds: float) -> bool:  # noqa: ANN401 - of any driver
    """Let a replica wait until it has replayed *position*; False: its version cannot.

    The server compares numbers only: its timeline must be asked for afterwards.
    """
    numbers = [number for number, _ in position.lines.values()]
    if version < WAIT_VERSION or len(numbers) != 1 or seconds * 1000 < 1:
        return False
    cursor.execute(wait_statement(numbers[0], seconds))
    return True


def wait_statement(lsn: int, seconds: float) -> str:
    """Return the statement that waits until a replica of version 19 or later has replayed *lsn*.

    Raises:
        ConfigurationError: A value is out of range. A timeout of 0 would mean: for ever.
    """
    milliseconds = int(seconds * 1000)
    if not 0 < lsn <= LSN_MAX:
        msg = f"a log sequence number is from 1 to 2**64 - 1, got {lsn!r}"
        raise ConfigurationError(msg)
    if milliseconds < 1:
        msg = f"a replica is waited for at least a millisecond, got {seconds!r} s"
        raise ConfigurationError(msg)
    where = f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}"
    return f"WAIT FOR LSN '{where}' WITH (TIMEOUT '{milliseconds}ms', NO_THROW)"
