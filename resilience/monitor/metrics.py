"""Every metric: its name, what it says and its labels; metrics.toml has the list."""

import json
import math
import tomllib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib.resources import files
from typing import Any, Final, NamedTuple

from resilience import errors, events
from resilience.events.answers import FAN_OUT_ENDS
from resilience.levels import Level
from resilience.tasks.resilience import Resilience

PREFIX: Final = "resilience_"
OTHER: Final = "other"
"""Stands for every name that the app does not declare, so that labels are bounded."""
ANSWERS: Final = "answers"
MINUTES: Final = "minutes_below_full"
LABELS: Final = {
    "level": {level.name for level in Level},
    "kind": {name for name in dir(errors) if name.endswith("Error")} | {"error"},
    "event": {name for name in events.__all__ if hasattr(getattr(events, name), "severity")}
    - {"Event"},
    "ended": {*FAN_OUT_ENDS},
}
"""Values of labels that are the same in every app."""
NAMES_MAX: Final = 2_000
"""Longest name of a series that is read."""

Series = tuple[str, ...]
"""A metric, then the values of its labels; of a histogram also a bound, `+Inf` or `sum`."""


class Metric(NamedTuple):
    """A metric.

    Attributes:
        kind: `counter`, `histogram` or `gauge`.
        help: What it says.
        labels: Their names.
        buckets: Upper bounds of a histogram, in seconds.
    """

    kind: str
    help: str
    labels: Sequence[str] = ()
    buckets: Sequence[float] = ()


_LIST: Final = files("resilience.monitor").joinpath("metrics.toml").read_text()
METRICS: Final = {name: Metric(**table) for name, table in tomllib.loads(_LIST).items()}


def known_labels(resilience: Resilience) -> dict[str, set[str]]:
    """Return the values that each label of a counter may have in this app."""
    dependencies = {*resilience.dependencies, ""}
    return {**LABELS, "dependency": dependencies, "task": {*resilience.app.tasks}}


def read_counts(fields: Mapping[Any, Any], known: Mapping[str, set[str]]) -> dict[Series, float]:
    """Return the counts in the store, without those that no process of ours can have written.

    Args:
        fields: By the name of the series, as text or bytes.
        known: From `known_labels`; other values become `OTHER`.
    """
    counts: dict[Series, float] = {}
    for name, value in fields.items():
        text = value.decode(errors="replace") if isinstance(value, bytes) else str(value)
        with suppress(ValueError):
            number = float(text.partition("|")[0])
            if (series := read_series(name, known)) and 0 <= number < math.inf:
                counts[series] = counts.get(series, 0.0) + number
    return counts


def read_series(name: str | bytes, known: Mapping[str, set[str]]) -> Series | None:
    """Return the series called *name* in the store; None: there is no such series."""
    parts: Any = None
    with suppress(ValueError, RecursionError):
        parts = json.loads(name) if len(name) <= NAMES_MAX else None
    if not isinstance(parts, list) or not all(isinstance(part, str) for part in parts):
        return None
    metric = METRICS.get(parts[0]) if parts else None
    if metric is None or len(parts) != len(metric.labels) + 1 + bool(metric.buckets):
        return None
    if metric.buckets and parts[-1] not in {*map(str, metric.buckets), "+Inf", "sum"}:
        return None
    rest = parts[len(metric.labels) + 1 :]
    labels = zip(metric.labels, parts[1:], strict=False)
    return parts[0], *(text if text in known[label] else OTHER for label, text in labels), *rest
