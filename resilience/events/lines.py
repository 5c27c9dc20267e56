"""Events as lines of the log."""

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final, Literal

from resilience.events.base import Event
from resilience.events.crowds import Crowds
from resilience.events.plain import plain
from resilience.events.tracing import trace_id
from resilience.levels import Level
from resilience.settings import log_format_here
from resilience.text import get_logger

logger = get_logger("resilience")
_encode = json.JSONEncoder(ensure_ascii=False).encode
TIMES: Final = frozenset({"until"})
"""Fields that are epoch times."""
BARE: Final = re.compile(r"[!#-<>-\[\]-~]+")
"""What logfmt needs no quotes for: visible ASCII characters without `"`, `=` and backslash."""


class LogLines:
    """Listens by writing one structured line to the logger `resilience`.

    A line of logfmt reads `event=AnswerDegraded dependency=users level=STALE …`; one of JSON is an
    object with the same fields. They are also in the record's `event` attribute, for formatters of
    your own. Fields without a value are left out, numbers are rounded, times are ISO 8601, long
    texts are shortened, control characters are escaped. `trace_id` is there where a span of
    OpenTelemetry is current. Of events that come in crowds there is one line a second for each
    dependency, queue or source; `left_out` counts those before it that have no line.
    """

    def __init__(self, form: Literal["logfmt", "json"] | None = None) -> None:
        """Write in this *form*; None: as `RESILIENCE_LOG_FORMAT` of the process says."""
        self._form = form
        self._crowds = Crowds()

    def __call__(self, event: Event) -> None:
        """Write a line of *event*, unless it is below the logger's level or one of a crowd."""
        if not logger.isEnabledFor(event.severity):
            return
        left_out = self._crowds.pick(event)
        if left_out is None:
            return
        fields = fields_of(event)
        further = {"left_out": left_out or None, "trace_id": trace_id()}
        fields |= {name: value for name, value in further.items() if value is not None}
        if self._form is None:
            self._form = log_format_here()
        line = as_json(fields) if self._form == "json" else logfmt(fields)
        logger.log(event.severity, "%s", line, extra={"event": fields})


def fields_of(event: Event) -> dict[str, object]:
    """Return what a line says of *event*: its name, and all fields that have a value."""
    fields = {name: _written(name, value) for name, value in event.details().items()}
    filled = {name: value for name, value in fields.items() if value not in (None, "", [], {})}
    return {"event": type(event).__name__, **filled}


def logfmt(fields: Mapping[str, object]) -> str:
    """Return *fields* as a line of logfmt; a text with spaces or signs is quoted as in JSON."""
    return " ".join(f"{name}={_quoted(value)}" for name, value in fields.items())


def as_json(value: object) -> str:
    """Return *value* as JSON on one line; what is not printable is escaped."""
    text = _encode(value)
    return text if text.isprintable() else json.dumps(value)


log_event = LogLines()


def _written(name: str, value: object) -> object:
    if isinstance(value, Level):
        return value.name
    if isinstance(value, float):
        return _moment(value) if name in TIMES else plain(_rounded(value))
    return plain(value)


def _moment(seconds: float) -> object:
    try:
        moment = datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return plain(seconds)
    return moment.isoformat(timespec="milliseconds")


def _rounded(value: float) -> float:
    return round(value, 3) if abs(value) >= 1 else float(f"{value:.3g}")


def _quoted(value: object) -> str:
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        value = ",".join(map(str, value))
    text = value if isinstance(value, str) else as_json(value)
    return text if BARE.fullmatch(text) else as_json(text)
