"""Whether endpoints beside the outage kept their pace, and how sure one can be of that.

A p99 of some hundred requests rests on two or three of them, so a ratio of two is uncertain. It is
given with its 90 % interval from a bootstrap (Efron, 1979), and a promise counts as broken only if
all of that interval lies above the bound.

Where other programs use the processors, every request is divided by how many times as long as
usual the control took at the same moment (see `demo.control`), and left out where that is many
times. What remains is uncertain, so there the interval must lie above a higher bound, or the
promise is not judged. A shop whose bulkheads share a worker is found all the same: the control has
a worker of its own, and is not late when that one is full.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

from rich.table import Table

from demo.control import Control, not_judged, was_busy
from demo.script import Recording
from demo.traffic import RATES, Sample, nearest_rank
from demo.verdict import Check

NEEDS: Final[Mapping[str, frozenset[str]]] = {
    "recommendations": frozenset({"recommendations"}),
    "orders": frozenset({"users", "database", "payments", "notifications"}),
    "search": frozenset({"database", "search"}),
    "profile": frozenset({"users", "recommendations"}),
    "dashboard": frozenset({"search", "payments", "database"}),
}
"""Whom an endpoint calls."""
RATIO_MAX: Final = 1.2
CLEAR_RATIO: Final = 3.0
"""What a ratio must exceed to count beside other programs."""
SLOWDOWN_MAX: Final = 4.0
"""A moment in which the control took more times as long as usual says nothing."""
JUDGED_SHARE_MIN: Final = 0.5
"""Of the requests of an endpoint, both before and during."""
SHARE: Final = 0.99
RESAMPLES: Final = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """An endpoint before the outage, and in it while one dependency was broken, none of its own.

    Attributes:
        endpoint: Which one.
        before: Seconds of the requests before, in order, without what the machine made of them.
        during: The same of those in the outage.
        judged_share: What share of both was not left out, at least.
    """

    endpoint: str
    before: Sequence[float]
    during: Sequence[float]
    judged_share: float = 1.0

    @property
    def ratio(self) -> float:
        """p99 during by p99 before."""
        return nearest_rank(self.during, SHARE) / nearest_rank(self.before, SHARE)

    def interval(self) -> tuple[float, float]:
        """Return the bounds that the ratio lies within, nine times in ten."""
        dice = Random(1)  # noqa: S311 - statistics, no secrets
        if not (self.before and self.during):
            return math.nan, math.nan
        ratios = sorted(
            nearest_rank(dice.choices(self.during, k=len(self.during)), SHARE)
            / nearest_rank(dice.choices(self.before, k=len(self.before)), SHARE)
            for _ in range(RESAMPLES)
        )
        return ratios[RESAMPLES // 20], ratios[-RESAMPLES // 20]


def paces(recording: Recording) -> Iterator[Pace]:
    """Yield every endpoint that had a time in which one broke that it does not call."""
    control = Control(recording)
    for endpoint in RATES:
        during = beside_the_outage(recording, endpoint)
        if during:
            parts = recording.during("before", endpoint), during
            judged = [_undisturbed(samples, control) for samples in parts]
            shares = [len(a) / len(b) for a, b in zip(judged, parts, strict=True) if b]
            yield Pace(
                endpoint=endpoint,
                before=judged[0],
                during=judged[1],
                judged_share=min(shares),
            )


def _undisturbed(samples: Sequence[Sample], control: Control) -> list[float]:
    """Return the seconds of *samples*, divided by how much slower than usual the machine was."""
    slowed = ((sample.seconds, control.slowdown(sample)) for sample in samples)
    return [seconds / slowdown for seconds, slowdown in slowed if slowdown <= SLOWDOWN_MAX]


def beside_the_outage(recording: Recording, endpoint: str) -> list[Sample]:
    """Return the requests that met one broken dependency, which their endpoint does not call.

    Times with two broken ones are left out. When a circuit opens, all who waited for it are
    answered at once, on processors that the others share: a burst that says more about how many
    waited than about who is kept from whom.
    """
    return [
        sample
        for sample in recording.during("during", endpoint)
        if len(met := recording.faults_met(sample)) == 1 and not met & NEEDS[endpoint]
    ]


def isolation_table(recording: Recording) -> Table:
    """Return the p99 of these endpoints."""
    title = "Endpoints beside one broken dependency, their own being well"
    divided = "Where other programs used the processors: by how much longer the control took."
    table = Table(title=title, caption=divided if was_busy(recording) else None)
    table.add_column("endpoint")
    headings = ("requests before", "during", "p99 before", "p99 during", "ratio", "90 % interval")
    for heading in headings:
        table.add_column(heading, justify="right")
    for pace in paces(recording):
        sizes = (str(len(pace.before)), str(len(pace.during)))
        cells = ["·"] * 4  # nothing is left to compare
        if pace.before and pace.during:
            low, high = pace.interval()
            times = [_milliseconds(pace.before), _milliseconds(pace.during)]
            cells = [*times, f"{pace.ratio:.2f}", f"{low:.2f} … {high:.2f}"]
        table.add_row(pace.endpoint, *sizes, *cells)
    return table


def isolation_checks(recording: Recording) -> Iterator[Check]:
    """Yield whether each of these endpoints kept its p99 within 1.2 times that of before."""
    busy = was_busy(recording)
    for pace in paces(recording):
        text = f"/{pace.endpoint} beside the outage"
        if pace.before and pace.during:
            text = f"{text}: p99 {pace.ratio:.2f} x that of before (at most {RATIO_MAX:g} x)"
        low, _ = pace.interval()
        if pace.judged_share < JUDGED_SHARE_MIN:
            yield Check(kept=None, text=f"{text}; {not_judged(recording)}")
        elif pace.ratio <= RATIO_MAX:
            yield Check(kept=True, text=text)
        elif low > (CLEAR_RATIO if busy else RATIO_MAX):
            yield Check(kept=False, text=text)
        elif busy:
            yield Check(kept=None, text=f"{text}; {not_judged(recording)}")
        else:
            yield Check(kept=None, text=f"{text}; it may be chance: see the interval")


def _milliseconds(seconds: Sequence[float]) -> str:
    return f"{1000 * nearest_rank(seconds, SHARE):.0f} ms"
