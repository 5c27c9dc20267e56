"""The headers that this library adds to a job's message: their names, their values, who reads them.

Some publishers put headers into a header called "headers" (Sentry's SDK, tracers). Celery then
shows a task only those as `request.headers`. So every reader here looks into both: first among the
headers of the message itself, then among the nested ones.
"""

import dataclasses
import logging
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

logger = logging.getLogger("resilience")

BUDGET_HEADER: Final = "resilience-budget"
"""`{"deadline", "total", "sent", "hops"}`, times in seconds of the fleet clock; None: no budget."""
RECEIVED_HEADER: Final = "resilience-received"
"""Fleet time at which a worker took the message; added there."""
SENT_HEADER: Final = "resilience-sent"
"""Fleet time at which the message was published; there if its publisher counts for Prometheus."""
SLOT_HEADER: Final = "resilience-slot"
"""`{"fan", "part", …}`: where a part of a fan-out reports its end."""
LANE_HEADER: Final = "resilience-lane"
"""The lane that a publisher asked for, if it is not the task's own."""
JOB_HEADER: Final = "resilience-job"
"""`{"born", "attempts", "dispatches", …}`: what the ledger knew of the job.

`serializer` is there if the publisher asked for one; the message of the next attempt has it, too.
"""
LEVEL_HEADER: Final = "resilience-level"
"""`{"level", "reason", "source", "age", "dependency"}`: how good the answer was that the job's
arguments were made from, if it was one of a task with fallbacks."""
POSITION_HEADER: Final = "resilience-position"
"""A token: what had been written and seen where the job was published; its reads see that, too."""
POSTPONED_HEADER: Final = "resilience-postponed"
"""Is there if the job was postponed once because no replica had replayed that."""
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
"""Of a longer chain the last so many are kept."""
FAN_ID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
"""What Celery makes for an id. Names of keys are made from it: nothing else is let in."""
COUNT_MAX: Final = 10**6
"""No job was tried so often. A header that says so was not written by this library."""
COUNTS: Final = ("attempts", "dispatches", "lost")

Headers: TypeAlias = Mapping[str, Any] | Context | None
"""The headers of a message, those that a publisher adds to one, or the request of a task."""

_warned: set[str] = set()


def header(headers: Headers, name: str) -> Any:  # noqa: ANN401 - whatever a publisher wrote
    """Return the value of the header called *name*, None if there is none."""
    own = vars(headers) if isinstance(headers, Context) else headers or {}
    if name in own:
        return own[name]
    nested = own.get("headers")
    return nested.get(name) if isinstance(nested, Mapping) else None


def repeated(request: Context, given: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the headers for the next attempt of the job with *request*.

    They are those that Celery repeats, or *given* ones in their place, and always ours.
    """
    others = request.headers if given is None else given
    ours = {name: header(request, name) for name in REPEATED}
    return {
        **{name: value for name, value in (others or {}).items() if name not in ours},
        **{name: value for name, value in ours.items() if value is not None},
    }


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Deadline:
    """Until when a job and all that it publishes must be done.

    Attributes:
        at: The moment, in fleet time.
        total: Seconds of the whole budget.
        sent: When the message was published, in fleet time.
        hops: Where the time went before.
    """

    at: float
    total: float
    sent: float
    hops: tuple[Hop, ...] = ()

    def left(self, now: float) -> float:
        """Return the seconds left at fleet time *now*; never more than the total."""
        return min(self.at - now, self.total)

    def late(self, what: str, now: float) -> BudgetExceededError:
        """Return the error of a job that was not begun in time."""
        return BudgetExceededError(what, 0.0, self.left(now), self.total)

    def must_be_ahead(self, what: str, now: float) -> None:
        """Let only pass what can still begin.

        Raises:
            BudgetExceededError: Nothing is left.
        """
        if self.left(now) <= 0:
            raise self.late(what, now)

    def header(self) -> dict[str, Any]:
        """Return what travels."""
        hops = [list(dataclasses.astuple(hop)) for hop in self.hops[-HOPS_MAX:]]
        return {"deadline": self.at, "total": self.total, "sent": self.sent, "hops": hops}


def deadline_of(headers: Headers) -> Deadline | None:
    """Return the deadline of the job with these *headers*, None if it has none.

    A malformed one is ignored, with one warning.
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
    """Return the fleet time at which a worker took the message, *otherwise* if it is not known."""
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
    """Return where the job with these *headers* reports, None if it is no part of a fan-out.

    A malformed header is ignored, with one warning, and so is a field of it that another release
    may have added. What else is to be known of the part, the record of the fan-out says.
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
    """Return the message headers that say how good the answer *given* to a job is."""
    fields = {
        "level": int(given.level),
        "reason": given.reason,
        "source": given.source,
        "age": given.age,
        "dependency": given.dependency,
    }
    return {LEVEL_HEADER: {name: value for name, value in fields.items() if value is not None}}


def level_of(headers: Headers) -> Outcome[None] | None:
    """Return how good what the job with these *headers* was given is, without its value.

    None: no answer of a task with fallbacks was among it. Malformed fields are left out.
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
    """Return what had been written and seen where the job with these *headers* was published.

    None: nobody said. What a malformed header stood for is lost by now, which *fleet_time* tells;
    there is one warning.
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
    """Return the token in the place of one that is lost by fleet time *now*.

    Who has it reads from primaries.
    """
    return Token(unknown={EVERYWHERE: now})


def lane_in(headers: Headers, own: Lane = NORMAL) -> Lane:
    """Return the lane that these *headers* name, *own* if they name none."""
    wanted = header(headers, LANE_HEADER)
    return next((lane for lane in LANES if lane == wanted), own)


def ledger_header(headers: Headers) -> dict[str, Any]:
    """Return what the ledger knew of the job with these *headers*; empty if nothing.

    A malformed one counts as none, with one warning: a part of it would be as little to be trusted.
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
    """Return how many workers have died while they held the message with these *headers*."""
    crashes = header(headers, CRASHES_HEADER)
    try:
        return 0 if crashes is None else _count(crashes)
    except ValueError as error:
        _warn_of(CRASHES_HEADER, crashes, error)
        return 0


def seconds_or(value: object, otherwise: float) -> float:
    """Return *value* if it is a time, *otherwise* if not."""
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
