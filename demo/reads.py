"""Whether users saw what they had bought while the replica heard nothing and the primary was dead.

A confirmed order is in the newest committed state of the shop. An answer that lacks it is stale,
and so may be whatever is served while the primary is away, but for what a user wrote a moment ago.
"""

from collections.abc import Iterator, Sequence
from typing import Final

from rich.table import Table

from demo.control import Control, not_judged, was_busy
from demo.script import Recording, Stretch
from demo.shoppers import PLACED, OrderRead
from demo.traffic import (
    BUDGETS,
    FAILED_LEVEL,
    GIVE_UP_SECONDS,
    TOLERANCE,
    UNAVAILABLE,
    Sample,
    nearest_rank,
)
from demo.verdict import EXCUSED_SHARE_MAX, LATE_SECONDS, STALE_LEVEL, Check

PARTS: Final = ("stalled", "cut", "healed")
ORDERS: Final = ("orders", "order")
"""What needs the primary: to buy, and to know whether there is an order that no replica has."""
TOLD_MAX: Final = 3
"""So many missed orders, and late requests, are told of one by one."""
FAST_SECONDS: Final = 1.0
"""An order that cannot be taken is refused in so long, of a budget of 2.5 s."""
RARE_SHARE: Final = 0.01
"""So few late requests prove nothing beside other programs: the control is asked now and then."""


def reads_table(recording: Recording) -> Table:
    """Return what became of orders, and of looks at them, by part of the script."""
    table = Table(title="Orders, and what users saw of them")
    table.add_column("")
    headings = ("orders taken", "refused", "own orders seen", "missed", "others' seen")
    for heading in (*headings, "marked", "not served", "reads p50/p99 ms"):
        table.add_column(heading, justify="right")
    for stretch in _stretches(recording):
        orders = recording.during(stretch.phase.part, "orders")
        taken = sum(one.status == PLACED for one in orders)
        reads = [one for one in _of(recording, stretch) if one.page == "order"]
        own = [one for one in reads if one.own]
        others = [one for one in reads if not one.own]
        counts = [
            taken,
            len(orders) - taken,
            sum(one.shown for one in own),
            sum(not one.shown for one in own),
            sum(one.shown for one in others),
            sum(STALE_LEVEL <= one.level < FAILED_LEVEL for one in others),
            sum(one.level == FAILED_LEVEL for one in others),
        ]
        seconds = [one.seconds for one in reads]
        times = " / ".join(f"{1000 * nearest_rank(seconds, share):.0f}" for share in (0.5, 0.99))
        cells = [str(count) if count else "·" for count in counts]
        table.add_row(stretch.phase.name, *cells, times if seconds else "·")
    return table


def reads_checks(recording: Recording) -> Iterator[Check]:
    """Yield whether own orders were seen, stale answers marked, and everybody else well."""
    control, busy = Control(recording), was_busy(recording, *PARTS)
    for check in (
        _own_seen(recording, control),
        _stale_marked(recording),
        _beside(recording, control),
    ):
        if busy and check.kept is None:
            yield Check(kept=None, text=f"{check.text}; {not_judged(recording)}")
        else:
            yield Check(kept=bool(check.kept), text=check.text)


def _own_seen(recording: Recording, control: Control) -> Check:
    stretches = _stretches(recording)
    asked = [one for stretch in stretches for one in _of(recording, stretch) if one.own]
    own = [one for one in asked if not _was_hindered(one, control)]
    missed = [one for one in own if _is_missed(one)]
    cut = (one for one in stretches if one.phase.part == "cut")
    without = sum(_served_without(one, stretch) for stretch in cut for one in own)
    text = f"{len(own) - len(missed)} of {len(own)} looks at own orders missed none"
    text = f"no user missed an own order: {text} ({without} of them without the primary)"
    hindered = len(asked) - len(own)
    if hindered:
        text = f"{text}, but for {hindered} not answered while the control was late"
    text = "; ".join((text, *(_told(one, stretches) for one in missed[:TOLD_MAX])))
    if missed and all(map(_is_unanswered, missed)) and _too_many(hindered, asked):
        return Check(kept=None, text=text)  # what is left may have been hindered, too
    return Check(kept=not missed if without else None, text=text)


def _told(read: OrderRead, stretches: Sequence[Stretch]) -> str:
    """Return what somebody who looks for the cause must know of a missed order."""
    where = next(one for one in stretches if one.told <= read.sent < one.ended)
    moment = f"{read.sent - where.told:.1f} s into {where.phase.part!r}"
    answer = f"HTTP {read.status}" if read.status else "no answer"
    told = f"{read.order_id} missed on /{read.page} {moment}, after {read.seconds:.2f} s: {answer}"
    return f"{told}, {read.reason}" if read.reason else told


def _is_missed(read: OrderRead) -> bool:
    """Tell whether a user did not find an own order; a list of them may say that it lacks some."""
    return not read.shown and (read.page == "order" or read.level < STALE_LEVEL)


def _was_hindered(read: OrderRead, control: Control) -> bool:
    """Tell whether a look got no answer while other programs made the control late."""
    moment = Sample(
        endpoint=read.page, sent=read.sent, seconds=read.seconds, status=read.status, meta={}
    )
    return _is_unanswered(read) and control.lateness(moment) > LATE_SECONDS


def _is_unanswered(read: OrderRead) -> bool:
    return read.status in {0, UNAVAILABLE}


def _too_many(hindered: int, asked: Sequence[object]) -> bool:
    """Tell whether the machine kept so many from being answered that nothing can be judged."""
    return hindered > EXCUSED_SHARE_MAX * len(asked)


def _stale_marked(recording: Recording) -> Check:
    stale = [
        one
        for stretch in _stretches(recording)
        for one in _of(recording, stretch)
        if one.status and not one.own and (not one.shown or _served_without(one, stretch))
    ]
    marked = [one for one in stale if one.level >= STALE_LEVEL]
    text = f"every stale answer was marked: {len(marked)} of {len(stale)} said so"
    return Check(kept=len(marked) == len(stale) if stale else None, text=text)


def _served_without(read: OrderRead, stretch: Stretch) -> bool:
    away = "primary" in stretch.phase.faults
    return away and stretch.began <= read.sent and read.sent + read.seconds <= stretch.ended


def _beside(recording: Recording, control: Control) -> Check:
    samples = [one for part in PARTS for one in recording.during(part)]
    wrong = [one for one in samples if _is_wrong(one)]
    late = [one for one in samples if one.late or not one.status]
    bad = [*wrong, *(one for one in late if not _is_excused(one, control))]
    cut = [one for one in _stretches(recording) if one.phase.part == "cut"]
    refused = [
        one
        for one in recording.during("cut", "orders")
        if one.status == UNAVAILABLE and any(stretch.spans(one) for stretch in cut)
    ]
    slow = [one for one in refused if one.seconds - control.lateness(one) > FAST_SECONDS]
    failed = [
        one
        for one in samples
        if one.endpoint not in ORDERS
        and one.level == FAILED_LEVEL
        and control.lateness(one) <= LATE_SECONDS
    ]
    slowest = max((one.seconds for one in refused), default=0.0)
    text = (
        f"without the primary {len(refused) - len(slow)} of {len(refused)} orders were refused in "
        f"{FAST_SECONDS:g} s (the slowest: {slowest:.2f} s); {len(samples) - len(bad)} of "
        f"{len(samples)} requests were answered in time"
    )
    text = "; ".join((text, *map(_told_of_late, bad[:TOLD_MAX])))
    if failed:
        first = failed[0]
        why = first.meta.get("reasons") or first.meta.get("reason") or f"HTTP {first.status}"
        text = (
            f"{text}, {len(failed)} of other endpoints not served (/{first.endpoint} after "
            f"{first.seconds:.2f} s: {why})"
        )
    if not wrong and _too_many(sum(_is_excused(one, control) for one in late), samples):
        return Check(kept=None, text=text)
    if not (wrong or slow or failed) and 0 < len(bad) <= RARE_SHARE * len(samples):
        return Check(kept=None, text=text)  # the control may have missed the moment
    return Check(kept=not (bad or slow or failed) if refused else None, text=text)


def _told_of_late(sample: Sample) -> str:
    answer = sample.error or f"HTTP {sample.status}"
    return f"/{sample.endpoint} took {sample.seconds:.2f} s: {answer}"


def _is_wrong(sample: Sample) -> bool:
    """Tell whether a request failed, or was not answered by somebody who refused it."""
    return bool(sample.error) if sample.status else sample.seconds < GIVE_UP_SECONDS


def _is_excused(sample: Sample, control: Control) -> bool:
    """Tell whether a request was late by no more than the machine made it."""
    return sample.seconds - control.lateness(sample) <= TOLERANCE * BUDGETS[sample.endpoint]


def _stretches(recording: Recording) -> Sequence[Stretch]:
    return [one for one in recording.stretches if one.phase.part in PARTS]


def _of(recording: Recording, stretch: Stretch) -> list[OrderRead]:
    """Return the looks that began in *stretch*."""
    return [one for one in recording.reads if stretch.told <= one.sent < stretch.ended]
