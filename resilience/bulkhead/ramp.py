"""How a worker that stopped taking jobs begins again: data and time in, data out."""

from dataclasses import dataclass
from enum import StrEnum

RAMP_FACTOR = 1.5
"""Jobs at once grow so per second, as the rate at which the ledger releases jobs does."""


class Mode(StrEnum):
    """What a worker does with a queue."""

    FULL = "full"
    """Takes as many jobs as it is declared to."""
    HELD = "held"
    """Takes none."""
    PROBING = "probing"
    """Takes one at a time, to find out whether the dependency is well again."""
    RAMPING = "ramping"
    """Takes more every second."""


@dataclass(frozen=True, slots=True)
class Course:
    """What a worker does with a queue, and since when it ramps, in monotonic seconds."""

    mode: Mode = Mode.FULL
    since: float = 0.0


def next_course(before: Course, *, held: bool, probing: bool, full: int, now: float) -> Course:
    """Return what a worker does at *now*.

    Args:
        before: What it did until now.
        held: Whether nothing may be taken: by order, or as the circuit refuses all.
        probing: Whether the circuit lets a few jobs through to see how they end.
        full: Jobs it runs at once as declared.
        now: Monotonic seconds.
    """
    if held:
        return Course(Mode.HELD)
    if probing:
        return Course(Mode.PROBING)
    if before.mode in {Mode.HELD, Mode.PROBING}:
        before = Course(Mode.RAMPING, now)
    if before.mode is Mode.RAMPING and jobs_at_once(before, full=full, now=now) >= full:
        return Course(Mode.FULL)
    return before


def jobs_at_once(course: Course, *, full: int, now: float) -> int:
    """Return how many jobs a worker may have in flight at *now*, 0 to *full*."""
    match course.mode:
        case Mode.HELD:
            return 0
        case Mode.PROBING:
            return 1
        case Mode.RAMPING:
            # A worker that was away for long would ask for a power beyond any float.
            seconds = min(max(0.0, now - course.since), 60.0)
            return min(full, int(RAMP_FACTOR**seconds))
        case Mode.FULL:
            return full
