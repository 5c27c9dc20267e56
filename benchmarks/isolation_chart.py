"""The chart of the benchmark of isolation."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.chart import new_chart

HANGS = (4.0, 8.0)
"""From when to when one of the dependencies hangs."""


def draw(sides: Mapping[str, Sequence[tuple[float, float]]], path: Path) -> None:
    """Draw what each job took, by the moment within the round at which it was due.

    Args:
        sides: By name, moments and seconds.
        path: Of the PNG.
    """
    figure = new_chart()
    if figure is None:
        return
    axes = figure.subplots()
    axes.axvspan(*HANGS, color="0.92", label="one dependency hangs")
    for name, jobs in sides.items():
        moments = [at for at, _ in jobs]
        axes.scatter(moments, [1000 * took for _, took in jobs], s=6, alpha=0.6, label=name)
    axes.set_yscale("log")
    axes.set_xlabel("seconds within a round")
    axes.set_ylabel("ms from due to done")
    axes.set_title("Jobs on the dependencies that are well")
    figure.legend(loc="outside lower center", ncols=3)
    figure.savefig(path)
