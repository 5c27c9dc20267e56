"""A recent write of a session, as a process knows it."""

import re
from typing import Any, Final, NamedTuple

from resilience.consistency.token import TOKEN_SECONDS
from resilience.outcome import Outcome

LIFE_US: Final = int(TOKEN_SECONDS * 1e6)
"""A record is good for so long, in microseconds."""
NOTHING, VALUE, DELETED, VERSION, ASK = b"", b"=", b"-", b"#", b"?"
"""What a record may tell: nothing yet; the value; that there is none; the version of the value;
that only the primary knows."""
_RECORD = re.compile(
    rb"(\d{1,16})\|(\d{1,16})\|(\d{1,16})\|(?:(\??)|([=#-])(-?\d{1,19})?:(.*))", re.DOTALL
)


class Told(NamedTuple):
    """What a record tells of a write: its kind, and version and text of the value."""

    kind: bytes
    version: int | None = None
    text: bytes = b""

    def payload(self) -> bytes:
        """Return the text that the store keeps; see writes.lua."""
        version = b"" if self.version is None else b"%d" % self.version
        return b"%b%b:%b" % (self.kind, version, self.text)


class Ticket:
    """A write that has begun and has not ended, or ended nobody knows how."""

    __slots__ = ("key", "number", "until")

    def __init__(self, key: str, number: int, until: float) -> None:
        self.key, self.number, self.until = key, number, until


class Record:
    """The newest write of a session to one key; times are monotonic seconds.

    Attributes:
        ticket: A later write that has not ended; as long as there is one, only the primary knows.
        held: Until then, a write that overlapped with another may come.
        until: When what it tells ends to count.
        number: Of the write that it tells of.
        kind: What it tells.
        version: Version of the value, if the source has versions.
        text: The value, encoded.
        answer: The answer that it makes, if that cannot be changed.
        weight: Its share of `WEIGHT_MAX`.
    """

    __slots__ = ("answer", "held", "kind", "number", "text", "ticket", "until", "version", "weight")

    def __init__(self, kind: bytes = NOTHING) -> None:
        self.ticket: Ticket | None = None
        self.held = self.until = 0.0
        self.weight = 1
        self.settle(0, kind)

    def lives(self, now: float) -> bool:
        """Tell whether it still tells anything."""
        open_until = self.held if self.ticket is None else max(self.held, self.ticket.until)
        return max(self.until, open_until) > now

    def settle(
        self, number: int, kind: bytes, version: int | None = None, text: bytes = b""
    ) -> None:
        """Tell of the write with this *number*."""
        self.number, self.kind, self.version, self.text = number, kind, version, text
        self.answer: Outcome[Any] | None = None


def read_record(text: bytes, now_us: int, now: float) -> Record:
    """Return the record that the store keeps as *text*; one that says `ASK` if it is malformed."""
    record, found = Record(), _RECORD.fullmatch(text)
    if found is None:
        record.settle(now_us, ASK)
        record.until = now + TOKEN_SECONDS
        return record
    pending, held, number = (int(one) for one in found.group(1, 2, 3))
    open_, kind = max(pending, held), found[5] or found[4] or NOTHING
    left = max(open_, number) + LIFE_US - now_us
    record.until = now + min(left, LIFE_US) / 1e6
    if open_ + LIFE_US > now_us or kind in (NOTHING, ASK):
        record.settle(number, ASK)
    else:
        record.settle(number, kind, int(found[6]) if found[6] else None, found[7])
    return record
