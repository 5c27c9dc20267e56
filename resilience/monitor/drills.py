"""What drills of fallback chains have found, fleet-wide."""

from collections import defaultdict
from collections.abc import Mapping
from contextlib import suppress
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from resilience.events import FallbackDrilled, FallbackDrillFailed
from resilience.events.plain import plain
from resilience.fallback import Chain
from resilience.levels import Level
from resilience.monitor.metrics import known_labels, read_counts, read_series
from resilience.tasks.resilience import Resilience
from resilience.text import hide_in_text

DRILLS: Final = "drills"
"""The metric that counts them."""
Text = Annotated[str, Field(max_length=1_100)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class LastDrill(BaseModel):
    """The last drill of one task that ended at one level, as the store keeps it for a day.

    Attributes:
        at: When it ended, in fleet time.
        seconds: How long the chain took.
        source: Which step would have answered; None: none.
        age: Seconds since that answer was fresh, if it has an age.
        reasons: Why other steps had no answer, by step.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    at: Seconds
    seconds: Seconds
    source: Text | None = None
    age: Seconds | None = None
    reasons: Annotated[dict[Text, Text], Field(max_length=51)] = Field(default_factory=dict)


def last_drill(event: FallbackDrilled | FallbackDrillFailed, at: float) -> str:
    """Return as JSON what is kept of the drill that ended in *event* at the fleet time *at*."""
    fields = {name: plain(value) for name, value in event.details().items()}
    return LastDrill.model_validate({**fields, "at": max(0.0, at)}).model_dump_json()


def drill_rows(app: Resilience) -> list[dict[str, Any]]:
    """Return a row for each task whose chain is drilled, or has been.

    The keys: `task`, which is `other` for all that is no task of the app; `dependency`; `share`, 0
    if its chain is not drilled any more; `drills`, how many there were; `answered`, how many found
    that the chain would have answered; `worst`, the name of the worst level of those, None if there
    are none; `last`, the last drill of the last day: the fields of `LastDrill`, and its `level`;
    `failed_at`, when the last of them found no answer. None: there is no such drill.

    Raises:
        StoreUnavailableError: The store does not answer.
        ConfigurationError: The app has no store.
    """
    known, store, redact = known_labels(app), app.store, app.settings.redact
    total, kept, none = store.key("totals"), store.key("exemplars"), dict[bytes, bytes]()
    totals = store.read(total, lambda client: client.hgetall(total), none)
    texts = store.read(kept, lambda client: client.hgetall(kept), none)
    counts: dict[tuple[str, str], dict[str, int]] = defaultdict(dict)
    for series, count in read_counts(totals, known).items():
        if series[0] == DRILLS:
            counts[series[1], series[2]][series[3]] = int(count)
    lasts: dict[tuple[str, str], dict[str, LastDrill]] = defaultdict(dict)
    for name, text in texts.items():
        if (named := read_series(name, known)) and named[0] == DRILLS:
            with suppress(ValidationError):  # no process of ours wrote it
                last = LastDrill.model_validate_json(text)
                hidden = {step: hide_in_text(why, redact) for step, why in last.reasons.items()}
                lasts[named[1], named[2]][named[3]] = last.model_copy(update={"reasons": hidden})
    shares = _shares(app)
    keys = sorted({*shares, *counts})
    return [_row(key, shares.get(key, 0.0), counts[key], lasts[key]) for key in keys]


def _shares(app: Resilience) -> dict[tuple[str, str], float]:
    """Return the shares of the declared drills, by task and dependency."""
    shares = {}
    for name, task in app.app.tasks.items():
        chain = getattr(task, "fallbacks", ())
        if isinstance(chain, Chain) and chain.drill_share:
            shares[name, str(getattr(task, "dependency", ""))] = chain.drill_share
    return shares


def _row(
    key: tuple[str, str], share: float, counts: Mapping[str, int], lasts: Mapping[str, LastDrill]
) -> dict[str, Any]:
    failed = Level.FAILED.name
    levels = [level for level in Level.__members__ if counts.get(level) and level != failed]
    last = max(lasts.items(), key=lambda item: item[1].at, default=None)
    return {
        "task": key[0],
        "dependency": key[1],
        "share": share,
        "drills": sum(counts.values()),
        "answered": sum(counts[level] for level in levels),
        "worst": levels[-1] if levels else None,
        "last": {"level": last[0], **last[1].model_dump()} if last else None,
        "failed_at": lasts[failed].at if failed in lasts else None,
    }
