"""Every metric: its name, what it says and its labels; metrics.toml has the list."""

import tomllib
from dataclasses import dataclass
from importlib.resources import files
from typing import Final

PREFIX: Final = "resilience_"
OTHER: Final = "other"
"""Stands for every name that the app does not declare, so that labels are bounded."""
ANSWERS: Final = "answers"


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric.

    Attributes:
        kind: `counter`, `histogram` or `gauge`.
        help: What it says.
        labels: Their names.
        buckets: Upper bounds of a histogram, in seconds.
    """

    kind: str
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


_text = files("resilience.monitor").joinpath("metrics.toml").read_text()
METRICS: Final = {
    name: Metric(
        fields["kind"],
        fields["help"],
        tuple(fields.get("labels", ())),
        tuple(fields.get("buckets", ())),
    )
    for name, fields in tomllib.loads(_text).items()
}
COUNTED: Final = {name: one for name, one in METRICS.items() if one.kind != "gauge"}
GAUGES: Final = {name: one for name, one in METRICS.items() if one.kind == "gauge"}
