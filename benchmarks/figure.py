"""One measured figure and its bound."""

import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from time import perf_counter


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A figure, printed as one line of JSON.

    Attributes:
        name: What was measured.
        value: How much.
        unit: Of what; `ratio` for one side over the other.
        bound: The most that is ok; None: for information.
        sides: Both sides of a ratio, and whatever else helps to read it.
    """

    name: str
    value: float
    unit: str
    bound: float | None
    sides: Mapping[str, object] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Tell whether the figure is within its bound."""
        return self.bound is None or self.value <= self.bound

    def to_json(self) -> str:
        """Return the line."""
        head = {"name": self.name, "value": round(self.value, 4), "unit": self.unit}
        return json.dumps({**head, "bound": self.bound, "ok": self.ok, **self.sides})


def in_turns(rounds: int, **sides: Callable[[], object]) -> dict[str, list[float]]:
    """Return seconds per run of each side, run in turns so that the machine's moods hit all."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, run in sides.items():
            began = perf_counter()
            run()
            seconds[name].append(perf_counter() - began)
    return seconds


def paired_ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Return the median over rounds of ours / theirs."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


def median_ms(seconds: Sequence[float]) -> float:
    """Return the median in milliseconds."""
    return round(statistics.median(seconds) * 1000, 3)
