"""The chart of the benchmark of isolation."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

HANGS = (4.0, 8.0)
"""From when to when one of the dependencies hangs."""
NEVER_MS = 10_000.0
"""Where a job stands that was not done."""


def draw(sides: Mapping[str, Sequence[tuple[float, float | None]]], path: Path) -> None:
    """Draw what each job took, by the moment within the round at which it was due.

    Args:
        sides: By name, moments and seconds; None: it was not done in time.
        path: Of the PNG.
    """
    figure = Figure(figsize=(9, 4.5), dpi=120, layout="constrained")
    axes = figure.subplots()
    axes.axvspan(*HANGS, color="0.92", label="one dependency hangs")
    for name, jobs in sides.items():
        moments = [at for at, _ in jobs]
        took = [NEVER_MS if seconds is None else 1000 * seconds for _, seconds in jobs]
        axes.scatter(moments, took, s=6, alpha=0.6, label=name)
    axes.set_yscale("log")
    axes.set_xlabel("seconds within a round")
    axes.set_ylabel("ms from due to done")
    axes.set_title("Jobs on the dependencies that are well")
    axes.legend(loc="upper right")
    figure.savefig(path)
