"""Whether the shop shed what it can do without in a rush, and took it back."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from rich.table import Table

from demo.control import not_judged, was_busy
from demo.script import Recording, Stretch
from demo.traffic import BUDGETS, SHED, TOLERANCE, Sample, percentile
from demo.verdict import Check

FEATURES: Final[Mapping[str, str]] = {
    "ranking": "search.ai_ranking",
    "spelling": "search.spell_check",
}
"""The features of search by the part of its answer that they bring, the costliest first."""
ENDPOINT: Final = "search"
SHARE: Final = 0.99


def shedding_table(recording: Recording) -> Table:
    """Return when each feature was shed and restored, in seconds from the beginning of the rush."""
    table = Table(title="Features of /search in the rush")
    table.add_column("feature")
    for heading in ("answers without it", "shed after", "last without it after"):
        table.add_column(heading, justify="right")
    began = _stretch(recording, "rush").began
    for part, feature in FEATURES.items():
        times = _times_without(recording, part)
        cells = [f"{at - began:.1f} s" for at in (times[0], times[-1])] if times else ["·", "·"]
        table.add_row(feature, str(len(times)), *cells)
    return table


def shedding_checks(recording: Recording) -> Iterator[Check]:
    """Yield whether features were shed and restored in order, and answers came in time."""
    busy = was_busy(recording, "rush", "calm")
    for check in (_in_order(recording), _in_time(recording)):
        if busy and not check.kept:
            yield Check(kept=None, text=f"{check.text}; {not_judged(recording)}")
        else:
            yield check


def _in_order(recording: Recording) -> Check:
    ranking, spelling = (_times_without(recording, part) for part in FEATURES)
    text = "in the rush ranking was shed, then spell check; afterwards they came back in reverse"
    if not (ranking and spelling):
        seen = f"answers without ranking: {len(ranking)}, without spell check: {len(spelling)}"
        return Check(kept=False, text=f"{text} ({seen})")
    shed_in_order = ranking[0] <= spelling[0]
    restored_in_order = spelling[-1] <= ranking[-1]
    last = max(ranking[-1], spelling[-1])
    after = [one for one in _searches(recording) if one.sent > last]
    return Check(kept=shed_in_order and restored_in_order and bool(after), text=text)


def _in_time(recording: Recording) -> Check:
    rush = recording.during("rush", ENDPOINT)
    late = [one for one in rush if one.late or not one.status]
    share = percentile(rush, SHARE) / BUDGETS[ENDPOINT]
    text = (
        f"{len(rush) - len(late)} of {len(rush)} searches in the rush were answered in time; their "
        f"p99 took {share:.0%} of the budget"
    )
    return Check(kept=bool(rush) and share <= TOLERANCE, text=text)


def _times_without(recording: Recording, part: str) -> list[float]:
    """Return when searches were sent whose answer lacks *part* as its feature was shed."""
    return sorted(
        one.sent for one in _searches(recording) if one.meta.get("reasons", {}).get(part) == SHED
    )


def _searches(recording: Recording) -> Sequence[Sample]:
    return [one for part in ("rush", "calm") for one in recording.during(part, ENDPOINT)]


def _stretch(recording: Recording, part: str) -> Stretch:
    return next(one for one in recording.stretches if one.phase.part == part)
