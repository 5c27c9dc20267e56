"""Writes and reads the headers that this library adds to a job's message.

Some publishers (Sentry's SDK, tracers) put headers into a header called "headers". Celery then
shows a task only the nested headers as `request.headers`. So every function here looks first among
the headers of the message itself, and then among the nested headers.
"""

import dataclasses
import math
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

from celery.app.task import Context

from resilience.broker import CRASHES_HEADER
from resilience.budget import SECONDS_MAX
from resilience.bulkhead import LANES, NORMAL, Lane
from resilience.consistency import EVERYWHERE, Token
from resilience.errors import BudgetExceededError
from resilience.levels import Level
from resilience.outcome import Hop, Outcome
from resilience.store import Slot
from resilience.text import get_logger

logger = get_logger("resilience")

BUDGET_HEADER: Final = "resilience-budget"
"""`{"deadline", "total", "sent", "hops"}`, times in seconds of the fleet clock; None: no budget."""
RECEIVED_HEADER: Final = "resilience-received"
"""Fleet time at which a worker took the message; the worker adds this header."""
SENT_HEADER: Final = "resilience-sent"
"""Fleet time at which the message was published; set if its publisher counts for Prometheus."""
SLOT_HEADER: Final = "resilience-slot"
"""`{"fan", "part", …}`: where a part of a fan-out reports its end."""
LANE_HEADER: Final = "resilience-lane"
"""The lane that the publisher asked for, if it differs from the task's lane."""
JOB_HEADER: Final = "resilience-job"
"""`{"born", "attempts", "dispatches", …}`: the ledger's data of the job at its publication.

`serializer` is present if the publisher asked for one; the next attempt's message repeats it.
"""
LEVEL_HEADER: Final = "resilience-level"
"""`{"level", "reason", "source", "age", "dependency"}`: the quality of the answer from which the
job's arguments were made. Set only if a task with fallbacks gave that answer."""
POSITION_HEADER: Final = "resilience-position"
"""Token of all that the publisher had written and seen; the reads of the job see that, too."""
POSTPONED_HEADER: Final = "resilience-postponed"
"""Set if the job was postponed once, because no replica had reached the job's position yet."""
REPEATED: Final = (
    BUDGET_HEADER,
    SLOT_HEADER,
    LANE_HEADER,
    JOB_HEADER,
    LEVEL_HEADER,
    POSITION_HEADER,
    POSTPONED_HEADER,
)
"""Headers that the message of a job's next attempt needs as well."""
HOPS_MAX: Final = 16
"""Most hops in the header; of a longer chain only the last ones are kept."""
FAN_ID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
"""The form of Celery's ids. Store keys are made from the id, so no other form is accepted."""
COUNT_MAX: Final = 10**6
"""Largest count that is believed. This library never writes a larger count into a header."""
COUNTS: Final = ("attempts", "dispatches", "lost")

Headers: TypeAlias = Mapping[str, Any] | Context | None
"""The headers of a message, those that a publisher adds to one, or the request of a task."""

_warned: set[str] = set()


def header(headers: Headers, name: str) -> Any:  # noqa: ANN401 - whatever a publisher wrote
    """Return the value of the header called *name*; None if the header is missing."""
    own = vars(headers) if isinstance(headers, Context) else headers or {}
    if name in own:
        return own[name]
    nested = own.get("headers")
    return nested.get(name) if isinstance(nested, Mapping) else None


def repeated(request: Context, given: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the headers for the next attempt of the job with *request*.

    They are the headers that Celery repeats (or *given* in their place) and those in `REPEATED`.
    """
    others = request.headers if given is None else given
    ours = {name: header(request, name) for name in REPEATED}
    return {
        **{name: value for name, value in (others or {}).items() if name not in ours},
        **{name: value for name, value in ours.items() if value is not None},
    }


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Deadline:
    """The time by which a job and all jobs that it publishes must be done.

    Attributes:
        at: The deadline, in fleet time.
        total: The whole budget, in seconds.
        sent: When the message was published, in fleet time.
        hops: The earlier jobs of the chain, and how much time each took.
    """

    at: float
    total: float
    sent: float
    hops: tuple[Hop, ...] = ()

    def left(self, now: float) -> float:
        """Return the seconds left at fleet time *now*; never more than the total."""
        return min(self.at - now, self.total)

    def late(self, what: str, now: float) -> BudgetExceededError:
        """Return the error for a job that did not begin in time; *what* names the job."""
        return BudgetExceededError(what, 0.0, self.left(now), self.total)

    def must_be_ahead(self, what: str, now: float) -> None:
        """Check that time is left to begin the job named *what*.

        Raises:
            BudgetExceededError: No time is left.
        """
        if self.left(now) <= 0:
            raise self.late(what, now)

    def header(self) -> dict[str, Any]:
        """Return the value of the budget header."""
        hops = [list(dataclasses.astuple(hop)) for hop in self.hops[-HOPS_MAX:]]
        return {"deadline": self.at, "total": self.total, "sent": self.sent, "hops": hops}


def deadline_of(headers: Headers) -> Deadline | None:
    """Return the deadline of the job with these *headers*; None if the job has no deadline.

    A malformed header is ignored, with one warning.
    """
    fields = header(headers, BUDGET_HEADER)
    if fields is None:
        return None
    try:
        at, total, sent = (_seconds(fields[name]) for name in ("deadline", "total", "sent"))
        if not 0 < total <= SECONDS_MAX:
            raise ValueError(total)  # noqa: TRY301 - malformed as the rest
        hops = tuple(
            Hop(_text(task), *map(_seconds, times)) for task, *times in fields["hops"][-HOPS_MAX:]
        )
    except (KeyError, TypeError, ValueError, IndexError, OverflowError) as error:
        _warn_of(BUDGET_HEADER, fields, error)
        return None
    return Deadline(at=at, total=total, sent=sent, hops=hops)


def received_of(headers: Headers, otherwise: float) -> float:
    """Return the fleet time at which a worker took the message; *otherwise* if it is unknown."""
    return seconds_or(header(headers, RECEIVED_HEADER), otherwise)


def slot_header(slot: Slot) -> dict[str, Any]:
    """Return the message headers that make a task report to *slot*."""
    fields: dict[str, Any] = {"fan": slot.fan, "part": slot.part}
    if slot.stale_seconds:
        fields["stale_seconds"] = slot.stale_seconds
    if not slot.last:
        fields["last"] = False
    return {SLOT_HEADER: fields}


def slot_of(headers: Headers) -> Slot | None:
    """Return where the job with these *headers* reports; None if it is no part of a fan-out.

    A malformed header is ignored, with one warning. An unknown field, which another release may
    have added, is ignored as well. All other data of the part is in the fan-out's record.
    """
    fields = header(headers, SLOT_HEADER)
    if fields is None:
        return None
    try:
        fan, part = _text(fields["fan"]), _text(fields["part"])
        stale, last = _seconds(fields.get("stale_seconds", 0.0)), fields.get("last", True)
        if not FAN_ID.fullmatch(fan) or not isinstance(last, bool):
            raise ValueError(fields)  # noqa: TRY301 - malformed as the rest
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
        _warn_of(SLOT_HEADER, fields, error)
        return None
    return Slot(fan=fan, part=part, stale_seconds=stale, last=last)


def level_header(given: Outcome[Any]) -> dict[str, Any]:
    """Return the header that tells a job the quality of *given*, the answer in its arguments."""
    fields = {
        "level": int(given.level),
        "reason": given.reason,
        "source": given.source,
        "age": given.age,
        "dependency": given.dependency,
    }
    return {LEVEL_HEADER: {name: value for name, value in fields.items() if value is not None}}


def level_of(headers: Headers) -> Outcome[None] | None:
    """Return the quality of the answer from which the job's arguments were made, without a value.

    None: no argument came from a task with fallbacks. Malformed fields are left out.
    """
    fields = header(headers, LEVEL_HEADER)
    if fields is None:
        return None
    try:
        level = Level(fields["level"])
    except (TypeError, KeyError, ValueError) as error:
        _warn_of(LEVEL_HEADER, fields, error)
        return None
    texts = {name: fields.get(name) for name in ("reason", "source", "dependency")}
    texts = {name: text if isinstance(text, str) else None for name, text in texts.items()}
    age = seconds_or(fields.get("age"), -1.0)
    return Outcome(value=None, level=level, age=age if age >= 0 else None, **texts)


def position_of(headers: Headers, fleet_time: Callable[[], float]) -> Token | None:
    """Return the token of all that the publisher of the job had written and seen.

    None: the header is missing. A malformed header counts as a token lost at *fleet_time*, with
    one warning.
    """
    fields = header(headers, POSITION_HEADER)
    if fields is None:
        return None
    try:
        return Token.from_json(fields)
    except ValueError as error:
        _warn(POSITION_HEADER, f"malformed header {POSITION_HEADER}={fields!r:.200}: {error}")
        return lost_token(fleet_time())


def lost_token(now: float) -> Token:
    """Return the token that replaces a token lost at fleet time *now* at the latest.

    A job with this token reads from primaries.
    """
    return Token(unknown={EVERYWHERE: now})


def lane_in(headers: Headers, own: Lane = NORMAL) -> Lane:
    """Return the lane that these *headers* name; *own* if they name no known lane."""
    wanted = header(headers, LANE_HEADER)
    return next((lane for lane in LANES if lane == wanted), own)


def ledger_header(headers: Headers) -> dict[str, Any]:
    """Return the ledger's data of the job with these *headers*; empty if there is none.

    A malformed header counts as missing, with one warning: its other fields cannot be trusted.
    """
    fields = header(headers, JOB_HEADER)
    if fields is None:
        return {}
    try:
        counts = {name: _count(fields[name]) for name in COUNTS if name in fields}
        born = {"born": _seconds(fields["born"])} if "born" in fields else {}
        texts = {name: fields.get(name) for name in ("origin", "serializer")}
        known = {name: _text(text) for name, text in texts.items() if text is not None}
        return counts | born | dict.fromkeys(texts) | known
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
        _warn_of(JOB_HEADER, fields, error)
        return {}


def crashes_of(headers: Headers) -> int:
    """Return how many workers died while they held the message with these *headers*."""
    crashes = header(headers, CRASHES_HEADER)
    try:
        return 0 if crashes is None else _count(crashes)
    except ValueError as error:
        _warn_of(CRASHES_HEADER, crashes, error)
        return 0


def seconds_or(value: object, otherwise: float) -> float:
    """Return *value* if it is a number of seconds; *otherwise* if not."""
    try:
        return _seconds(value)
    except (ValueError, OverflowError):
        return otherwise


def _seconds(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
        raise ValueError(value)
    return float(value)


def _count(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= COUNT_MAX:
        raise ValueError(value)
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(value)
    return value


def _warn_of(name: str, value: object, error: Exception) -> None:
    try:
        shown = f"{value!r:.200}"
    except Exception:  # noqa: BLE001 - Python does not write integers of 4,300 digits and more
        shown = f"a {type(value).__name__}"
    _warn(name, f"ignored a malformed header {name}={shown}: {type(error).__name__}")


def _warn(name: str, text: str) -> None:
    if name not in _warned:
        _warned.add(name)
        logger.warning("%s (logged once per process)", text)
