"""What must become of a fan-out of four parts, stated independently of the implementation."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Any

FATES = ("ok", "fails", "late", "duplicate", "killed", "dropped")
"""What can happen to a part: `killed` never reports, `dropped` is reported as revoked."""
REPORTED = ("ok", "fails", "duplicate", "dropped")
"""Those of them that report before the deadline."""
GOOD = ("ok", "duplicate")
REASON_OF = {"fails": "ConnectionError", "dropped": "TaskRevokedError"}
REASON_OF_SILENCE = "DeadlineExceeded"
FULL, STALE, REDUCED, FAILED = 0, 1, 2, 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One fan-out and all that happens to its parts.

    Attributes:
        fates: What happens to each part, by name.
        required: Parts without which the response fails.
        stale: Parts whose last full answer is remembered.
        forgotten: Parts that may have a stale answer, of which there is none.
        order: In which order the parts report.
        callback: Whether a task is to be called at the end.
    """

    fates: dict[str, str]
    required: frozenset[str]
    stale: frozenset[str]
    forgotten: frozenset[str]
    order: tuple[str, ...]
    callback: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What everybody must see of one scenario.

    Attributes:
        ended: Why it ended: `complete`, `required` or `deadline`.
        data: Values by part: its own name, or `old <name>` where the stale one stands in.
        missing: Parts without an answer, in order.
        degraded: Parts with a stale answer, in order.
        reasons: Why, by part.
        level: Level of the response, as a number.
        late: Reports after the end.
    """

    ended: str
    data: dict[str, Any]
    missing: list[str]
    degraded: list[str]
    reasons: dict[str, str]
    level: int
    late: int


def scenarios() -> Iterator[Scenario]:
    """Return one scenario for every combination of fates, its flags drawn at random but fixed."""
    for fates in itertools.product(FATES, repeat=4):
        draw = Random("-".join(fates))  # noqa: S311 - the same flags at every run
        names = ("a", "b", "c", "d")
        order = list(names)
        draw.shuffle(order)
        memory = {name: draw.choice(("none", "stale", "forgotten")) for name in names}
        yield Scenario(
            fates=dict(zip(names, fates, strict=True)),
            required=frozenset(name for name in names if draw.random() < 1 / 3),
            stale=frozenset(name for name in names if memory[name] == "stale"),
            forgotten=frozenset(name for name in names if memory[name] == "forgotten"),
            order=tuple(order),
            callback=draw.random() < 1 / 2,
        )


def covering_scenarios() -> list[Scenario]:
    """Return few scenarios that together have every trait that any of them has."""
    traits = {tuple(one.fates.values()): set(_traits(one)) for one in scenarios()}
    missing = set().union(*traits.values())
    chosen = []
    while missing:
        best = max(traits, key=lambda fates: len(traits[fates] & missing))
        missing -= traits[best]
        chosen.append(best)
    return [one for one in scenarios() if tuple(one.fates.values()) in chosen]


def expect(scenario: Scenario) -> Expected:
    """Return what must become of *scenario*."""
    ended, came, late = _run(scenario)
    data: dict[str, Any] = {}
    missing, degraded, reasons = [], [], {}
    for name in scenario.fates:
        fate = came.get(name)
        if fate in GOOD:
            data[name] = name
            continue
        reasons[name] = REASON_OF[fate] if fate else REASON_OF_SILENCE
        if name in scenario.stale:
            data[name] = f"old {name}"
            degraded.append(name)
        else:
            missing.append(name)
    if scenario.required & set(missing):
        level = FAILED
    elif missing:
        level = REDUCED
    else:
        level = STALE if degraded else FULL
    return Expected(
        ended=ended,
        data=data,
        missing=missing,
        degraded=degraded,
        reasons=reasons,
        level=level,
        late=late,
    )


def _traits(scenario: Scenario) -> Iterator[tuple[object, ...]]:
    """Yield each pair of fates, each part's fate with what else holds for it, and the end."""
    for (one, fate), (other, another) in itertools.combinations(scenario.fates.items(), 2):
        yield one, fate, other, another
    for name, fate in scenario.fates.items():
        memory = (name in scenario.stale, name in scenario.forgotten)
        yield name, fate, memory, name in scenario.required
        yield name, fate, scenario.order.index(name)
    expected = expect(scenario)
    yield expected.ended, expected.level, expected.late, scenario.callback


def _run(scenario: Scenario) -> tuple[str, dict[str, str], int]:
    """Return why it ends, what came in by then, and how many reports come later."""
    ended, came, late = "", dict[str, str](), 0
    for name in scenario.order:
        fate = scenario.fates[name]
        if fate not in REPORTED:
            continue
        if ended:
            late += 1  # a part counts once, however often it reports
            continue
        came[name] = fate
        if len(came) == len(scenario.fates):
            ended = "complete"
        elif fate not in GOOD and name in scenario.required - scenario.stale:
            ended = "required"
    late += sum(fate == "late" for fate in scenario.fates.values())
    return ended or "deadline", came, late
