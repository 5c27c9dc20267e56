"""Whether endpoints beside the outage kept their pace, and how sure one can be of that.

A p99 of some hundred requests rests on two or three of them, so a ratio of two is uncertain. It is
given with its 90 % interval from a bootstrap (Efron, 1979), and a promise counts as broken only if
all of that interval lies above the bound.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

from rich.table import Table

from demo.script import Recording
from demo.traffic import RATES, Sample, percentile
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
SHARE: Final = 0.99
RESAMPLES: Final = 400
OTHERS_MAX: Final = 0.25
"""Processors' worth of other programs beside which two stretches of time cannot be compared."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """An endpoint before the outage, and in it while one dependency was broken, none of its own."""

    endpoint: str
    before: Sequence[Sample]
    during: Sequence[Sample]

    @property
    def ratio(self) -> float:
        """p99 during by p99 before."""
        return percentile(self.during, SHARE) / percentile(self.before, SHARE)

    def interval(self) -> tuple[float, float]:
        """Return the bounds that the ratio lies within, nine times in ten."""
        dice = Random(1)  # noqa: S311 - statistics, no secrets
        ratios = sorted(
            percentile(dice.choices(self.during, k=len(self.during)), SHARE)
            / percentile(dice.choices(self.before, k=len(self.before)), SHARE)
            for _ in range(RESAMPLES)
        )
        return ratios[RESAMPLES // 20], ratios[-RESAMPLES // 20]


def paces(recording: Recording) -> Iterator[Pace]:
    """Yield every endpoint that had a time in the outage in which one it does not call was broken.

    Times with two broken ones are left out. When a circuit opens, all who waited for it are
    answered at once, on processors that the others share: a burst that says more about how many
    waited than about who is kept from whom.
    """
    for endpoint in RATES:
        during = [
            sample
            for sample in recording.during("during", endpoint)
            if len(met := recording.faults_met(sample)) == 1 and not met & NEEDS[endpoint]
        ]
        if during:
            before = recording.during("before", endpoint)
            yield Pace(endpoint=endpoint, before=before, during=during)


def isolation_table(recording: Recording) -> Table:
    """Return the p99 of these endpoints."""
    table = Table(title="Endpoints beside one broken dependency, their own being well")
    table.add_column("endpoint")
    headings = ("requests before", "during", "p99 before", "p99 during", "ratio", "90 % interval")
    for heading in headings:
        table.add_column(heading, justify="right")
    for pace in paces(recording):
        sizes = (str(len(pace.before)), str(len(pace.during)))
        times = (_milliseconds(pace.before), _milliseconds(pace.during))
        low, high = pace.interval()
        table.add_row(pace.endpoint, *sizes, *times, f"{pace.ratio:.2f}", f"{low:.2f} … {high:.2f}")
    return table


def isolation_checks(recording: Recording) -> Iterator[Check]:
    """Yield whether each of these endpoints kept its p99 within 1.2 times that of before."""
    busy = _others(recording, "before"), _others(recording, "during")
    for pace in paces(recording):
        text = f"/{pace.endpoint} beside the outage: p99 {pace.ratio:.2f} x that of before"
        text = f"{text} (at most {RATIO_MAX:g} x)"
        if pace.ratio <= RATIO_MAX:
            yield Check(kept=True, text=text)
        elif max(busy) > OTHERS_MAX:
            why = f"other programs used {busy[0]:.1f} processors before and {busy[1]:.1f} during"
            yield Check(kept=None, text=f"{text}; not comparable: {why}")
        elif pace.interval()[0] <= RATIO_MAX:
            yield Check(kept=None, text=f"{text}; it may be chance: see the interval")
        else:
            yield Check(kept=False, text=text)


def _others(recording: Recording, part: str) -> float:
    stretches = [one for one in recording.stretches if one.phase.part == part]
    seconds = sum(one.ended - one.began for one in stretches)
    return sum(one.others * (one.ended - one.began) for one in stretches) / seconds


def _milliseconds(samples: Sequence[Sample]) -> str:
    return f"{1000 * percentile(samples, SHARE):.0f} ms"
