"""How a part of a fan-out tells the others that it has ended."""

from celery.exceptions import TimeLimitExceeded, WorkerLostError
from kombu.exceptions import EncodeError

from resilience.consistency import Token
from resilience.errors import AnswerTooOldError, StoreUnavailableError, retry_after_of, text_of
from resilience.events import PartLate, PartUnreported
from resilience.partial import is_full, oldest
from resilience.store import Slot
from resilience.tasks.envelope import lost_token
from resilience.tasks.positions import token_here, with_reads
from resilience.tasks.resilience import Resilience
from resilience.tasks.response import deliver_callback
from resilience.tasks.serialization import dumps

UNKNOWN = "its fan-out has no such part: the header that named it was not written by this library"
GONE = (
    "its fan-out has no record here: it ended minutes ago, or the caller and this worker differ in "
    "RESILIENCE_STORE_URL or RESILIENCE_NAMESPACE"
)


def report_value(resilience: Resilience, slot: Slot, value: object) -> None:
    """Report the part's value to the fan-out of *slot*, unless it is older than the slot allows.

    For a value that is too old, what the fan-out itself remembers may stand in.
    """
    value = with_reads(value)
    age = oldest(value)
    if slot.stale_seconds and age > slot.stale_seconds:
        msg = f"the answer is {age:.0f} s old, more than the {slot.stale_seconds:g} s of the part"
        report_failure(resilience, slot, AnswerTooOldError(msg))
        return
    try:
        payload = "+" + dumps(value)
    except EncodeError as error:
        report_failure(resilience, slot, error)
    else:
        _report(resilience, slot, payload, full=is_full(value))


def report_failure(resilience: Resilience, slot: Slot, error: BaseException) -> None:
    """Tell the fan-out of *slot* that the part ended without a value."""
    why = {
        "reason": type(error).__name__,
        "error": text_of(error),
        "retry_after": retry_after_of(error),
    }
    # One that is gone may have written who knows what.
    gone = isinstance(error, (WorkerLostError, TimeLimitExceeded)) and bool(resilience.sources)
    seen = lost_token(resilience.fleet_time()) if gone else None
    _report(resilience, slot, "-" + dumps(why), full=False, seen=seen)


def _report(
    resilience: Resilience, slot: Slot, payload: str, *, full: bool, seen: Token | None = None
) -> None:
    token = token_here() if seen is None else seen
    try:
        ended = resilience.fan_in.report(
            slot, payload, full=full, seen=dumps(token.to_json()) if token else ""
        )
    except StoreUnavailableError as error:
        resilience.announce(PartUnreported(id=slot.fan, part=slot.part, error=str(error)))
        return
    if ended == "gone":
        resilience.announce(PartUnreported(id=slot.fan, part=slot.part, error=GONE))
    elif ended == "unknown":
        resilience.announce(PartUnreported(id=slot.fan, part=slot.part, error=UNKNOWN))
    elif ended == "late":
        resilience.announce(PartLate(id=slot.fan, part=slot.part))
    elif ended == "callback":
        deliver_callback(resilience, slot.fan)
