"""What a recording shows: a table per endpoint, and whether the shop kept its promises."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from rich.table import Table

from demo.control import Control, not_judged, was_busy
from demo.script import Recording
from demo.traffic import (
    BUDGETS,
    CONTROL,
    FAILED_LEVEL,
    GIVE_UP_SECONDS,
    RATES,
    TOLERANCE,
    Sample,
    percentile,
)

PARTS: Final = ("before", "during", "after")
LEVELS: Final = range(5)
BROKEN: Final = 1
"""Exit code of a demo that found a promise broken."""
NOT_JUDGED: Final = 3
"""Exit code of one that found none broken, but could not judge all."""
RECOVERY_SECONDS: Final = 5.0
CLEAR_RECOVERY_SECONDS: Final = 1.5 * RECOVERY_SECONDS
"""What recovery must exceed to count beside other programs."""
STALE_LEVEL: Final = 1
EXCUSED_SHARE_MAX: Final = 0.1
"""If more requests were late because the machine was, budgets cannot be judged on it."""
MISSED_SHARE: Final = 0.2
"""The control is asked a few times a second: of the pauses of a busy machine it misses some. So few
late requests beside those that it explains are no finding."""
LATE_SECONDS: Final = 0.1
"""A moment in which the control was later than that tells nothing of recovery."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One promise: kept, broken, or (None) not judged; the text says what was seen."""

    kept: bool | None
    text: str


def conclude(verdict: Sequence[Check]) -> tuple[int, str]:
    """Return the exit code and the words of a *verdict*; a promise not judged is not a kept one."""
    broken, unknown = (sum(check.kept is kept for check in verdict) for kept in (False, None))
    if broken:
        return BROKEN, f"[red]Verdict: promises broken: {broken}.[/]"
    if unknown:
        said = f"[yellow]Verdict: no promise was broken, but {unknown} could not be judged.[/]"
        return NOT_JUDGED, said
    return 0, "[green]Verdict: the shop degraded gracefully.[/]"


def endpoint_table(recording: Recording) -> Table:
    """Return one row per endpoint: answers by level, errors, p50/p99 by part of the script."""
    table = Table(title="Requests, and answers by level (0 full … 4 not served)")
    table.add_column("endpoint")
    for heading in ("requests", *map(str, LEVELS), "partial", "errors"):
        table.add_column(heading, justify="right")
    for part in PARTS:
        table.add_column(f"{part}\np50/p99 ms", justify="right")
    for endpoint in (*RATES, CONTROL):
        by_part = {part: recording.during(part, endpoint) for part in PARTS}
        samples = [sample for part in PARTS for sample in by_part[part]]
        levels = Counter(sample.level for sample in samples if sample.status)
        partial = sum(bool(sample.meta.get("partial")) for sample in samples)
        errors = sum(bool(sample.error) or sample.late for sample in samples)
        counts = [len(samples), *(levels[level] for level in LEVELS), partial, errors]
        times = [_milliseconds(by_part[part]) for part in PARTS]
        name = f"{endpoint} (control)" if endpoint == CONTROL else endpoint
        table.add_row(name, *(str(count) if count else "·" for count in counts), *times)
    return table


def checks(recording: Recording) -> Iterator[Check]:
    """Yield what was promised to every user, and whether it was kept."""
    control = Control(recording)
    samples = [sample for part in PARTS for sample in recording.during(part)]
    yield _in_time(recording, samples, control)
    yield _no_defect(samples, control)
    yield _honest(recording, control)
    yield _nothing_lost(recording)
    yield _recovered(recording, control)


def _in_time(recording: Recording, samples: Sequence[Sample], control: Control) -> Check:
    late = [sample for sample in samples if sample.late or not sample.status]
    bad = [sample for sample in late if not _excused(sample, control)]
    text = f"{len(samples) - len(bad)} of {len(samples)} requests were answered inside their budget"
    slowest = max(samples, key=lambda sample: sample.seconds / BUDGETS[sample.endpoint])
    share = slowest.seconds / BUDGETS[slowest.endpoint]
    worst = f"the slowest, of /{slowest.endpoint}, took {share:.0%} of it"
    excused = len(late) - len(bad)
    text = f"{text} + {TOLERANCE - 1:.0%} ({worst})"
    if excused:
        text = f"{text}; {excused} of them were late, but no later than the control just then"
    if excused > EXCUSED_SHARE_MAX * len(samples) or 0 < len(bad) < MISSED_SHARE * excused:
        return Check(kept=None, text=f"{text}; {not_judged(recording)}")
    return Check(kept=not bad, text=text)


def _excused(sample: Sample, control: Control) -> bool:
    """Tell whether *sample* was late by no more than other programs made the control late."""
    if not sample.status and sample.seconds < GIVE_UP_SECONDS:
        return False  # refused, not late
    return sample.seconds - control.lateness(sample) <= TOLERANCE * BUDGETS[sample.endpoint]


def _no_defect(samples: Sequence[Sample], control: Control) -> Check:
    kinds = Counter(
        sample.error
        for sample in samples
        if sample.error and (sample.status or not _excused(sample, control))
    )
    found = ", ".join(f"{count} x {error}" for error, count in kinds.items())
    return Check(kept=not kinds, text=f"no HTTP 500 and no other error{found and ': ' + found}")


def _honest(recording: Recording, control: Control) -> Check:
    outage = [one for one in recording.stretches if "recommendations" in one.phase.faults]
    asked = [
        sample
        for sample in recording.during("during", "recommendations")
        if any(one.spans(sample) for one in outage)
        and (sample.status or not _excused(sample, control))
    ]
    bad = [sample for sample in asked if not _says_so(sample)]
    text = f"{len(asked) - len(bad)} of {len(asked)} answers of /recommendations"
    return Check(kept=not bad, text=f"{text} in the outage were served and said how degraded")


def _says_so(sample: Sample) -> bool:
    """Tell whether an answer was served, and owns up to level and reason, and age if stale."""
    meta = sample.meta
    aged = meta.get("age") is not None or sample.level != STALE_LEVEL
    return STALE_LEVEL <= sample.level < FAILED_LEVEL and bool(meta.get("reason")) and aged


def _nothing_lost(recording: Recording) -> Check:
    promised = {sample.mail for sample in recording.samples if sample.mail}
    found = len(promised.intersection(recording.mails))
    text = f"{found} of {len(promised)} orders that were taken got their mail"
    return Check(kept=found == len(promised), text=text)


def _recovered(recording: Recording, control: Control) -> Check:
    back = next(one for one in recording.stretches if one.phase.part == "after")
    after = recording.during("after")
    # What is shed for another reason is the business of `demo.shedding`.
    degraded = [one for one in after if (one.level or one.meta.get("partial")) and not one.shed]
    judged = [one for one in degraded if control.lateness(one) <= LATE_SECONDS]
    seconds = max((one.sent + one.seconds for one in judged), default=back.began) - back.began
    text = f"every answer was in full again {seconds:.1f} s after the repair"
    text = f"{text} (at most {RECOVERY_SECONDS:g} s)"
    if all(control.lateness(one) > LATE_SECONDS for one in after):
        return Check(kept=None, text=f"{text}; {not_judged(recording)}")
    if judged != degraded:
        left_out = len(degraded) - len(judged)
        text = f"{text}, but for {left_out} while the control was late, too"
    if RECOVERY_SECONDS < seconds <= CLEAR_RECOVERY_SECONDS and was_busy(recording, "after"):
        return Check(kept=None, text=f"{text}; {not_judged(recording)}")
    return Check(kept=seconds <= RECOVERY_SECONDS, text=text)


def _milliseconds(samples: Sequence[Sample]) -> str:
    return f"{1000 * percentile(samples, 0.5):.0f} / {1000 * percentile(samples, 0.99):.0f}"
