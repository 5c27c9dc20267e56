"""One measured figure and its bound."""

import json
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from timeit import Timer


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A figure, printed as one line of JSON.

    Attributes:
        name: What was measured.
        value: The measured value.
        unit: Its unit; `ratio` for one side over the other.
        bound: The greatest value that is ok; None: the figure is for information.
        least: Whether the bound is the least value that is ok instead.
        sides: Both sides of a ratio, and whatever else helps to read the figure.
    """

    name: str
    value: float
    unit: str
    bound: float | None
    least: bool = False
    sides: Mapping[str, object] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Tell whether the figure is within its bound."""
        if self.bound is None:
            return True
        return self.value >= self.bound if self.least else self.value <= self.bound

    def to_json(self) -> str:
        """Return the line."""
        head = {"name": self.name, "value": round(self.value, 4), "unit": self.unit}
        bound = {"at_least" if self.least else "bound": self.bound}
        return json.dumps({**head, **bound, "ok": self.ok, **self.sides})


def in_turns(rounds: int, **sides: Callable[[], object]) -> dict[str, list[float]]:
    """Return seconds per run of each side. Sides take turns, so that disturbances hit them all."""
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


def median_us(function: Callable[[], object], *, repeats: int, calls: int = 50) -> float:
    """Return microseconds per call, the median of many short runs.

    Other programs disturb the median only if they disturb half of the runs. Unlike the best run, it
    shows a cost that not every call has.
    """
    return statistics.median(Timer(function).repeat(repeats, calls)) / calls * 1e6


def exponent(points: Mapping[int, float]) -> float:
    """Return the power of the size by which a cost grows: a least-squares fit of logarithms.

    0: it does not grow; 1: it grows in proportion.
    """
    sizes, costs = ([math.log(value) for value in side] for side in (points, points.values()))
    return statistics.linear_regression(sizes, costs).slope


def median_ms(seconds: Sequence[float]) -> float:
    """Return the median in milliseconds."""
    return round(statistics.median(seconds) * 1000, 3)
