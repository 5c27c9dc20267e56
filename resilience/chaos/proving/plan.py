"""Which faults to try on a call, and how bad its answer may be under each; nothing here runs."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Final, Literal, get_args

from resilience.dependency import Dependency
from resilience.levels import Level

Kind = Literal[
    "error", "slow", "hang", "refused", "full", "late", "execute-then-timeout", "killed", "cold"
]
"""`cold` is an `error` while no answer of before is remembered."""
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
LOST_TIME: Final = frozenset({"late", "killed"})
"""What no fallback chain answers: the job itself comes too late, and is dropped."""


@dataclass(frozen=True, slots=True, order=True)
class Planned:
    """A fault of a dependency that is to be tried."""

    dependency: str
    kind: Kind

    def __str__(self) -> str:
        """Return it as a row of the table names it."""
        return f"{self.dependency} {self.kind}"


@dataclass(frozen=True, slots=True, kw_only=True)
class PartFacts:
    """What a part of a fan-out declares.

    Attributes:
        worst: Level of the last step of its task's chain; FAILED if it has none.
        required: Whether the response fails without it.
        stale: Whether an answer of before may stand in.
    """

    worst: Level = Level.FAILED
    required: bool = False
    stale: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class CallFacts:
    """What is declared of a call.

    Attributes:
        name: Of the call.
        task: Level of the last step of the task that it calls, FAILED if that has none; None: it
            calls no task.
        parts: Of the fan-out that it calls; None: it calls none.
        timed: Whether it has a budget.
        worst: Worst level that its author accepts; None: that of the declarations.
        required: Dependencies without which it may fail.
        silent: Dependencies whose failure changes no answer.
    """

    name: str
    task: Level | None = None
    parts: Mapping[str, PartFacts] | None = None
    timed: bool = False
    worst: Level | None = None
    required: Collection[str] = ()
    silent: Collection[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Touch:
    """How a call, or the answer to a fault of it, came to call a dependency.

    Attributes:
        dependency: Its name.
        job: Whether the dependency's own job made the call.
        worker: Whether a worker made it.
        budget: Seconds of the longest budget of such a job; None: it had none.
        kept: Whether only jobs that the ledger keeps made such calls.
        parts: Names of the parts of the fan-out that made them.
        remembered: Whether an answer of before may stand in.
    """

    dependency: str
    job: bool = True
    worker: bool = True
    budget: float | None = None
    kept: bool = False
    parts: frozenset[str] = frozenset()
    remembered: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One call under one or two faults.

    Attributes:
        call: Its name.
        faults: What is injected.
        worst: Worst level that its answer may have.
    """

    call: str
    faults: tuple[Planned, ...]
    worst: Level

    @property
    def fault(self) -> str:
        """What the table calls the faults."""
        return " + ".join(map(str, self.faults))

    def __str__(self) -> str:
        """Return it as sentences name it."""
        return f"{self.call} under {self.fault}"


def kinds_of(touch: Touch, dependency: Dependency) -> Iterator[Kind]:
    """Yield the faults that calls of *dependency* can meet."""
    can_be = {
        # Jobs that are held wait until the circuit closes: nothing is refused.
        "refused": dependency.breaker is not None and dependency.on_open == "fail_fast",
        "full": dependency.slots is not None or (touch.job and dependency.max_queue is not None),
        "late": touch.job and touch.budget is not None,
        "killed": touch.worker,
        "cold": touch.remembered,
    }
    for kind in KINDS:
        if can_be.get(kind, True):
            yield kind


def worst_level(call: CallFacts, touch: Touch, kind: Kind) -> Level:
    """Return the worst level that the answer of *call* may have under a fault of one kind."""
    if touch.dependency in call.required:
        return Level.FAILED
    if touch.kept or touch.dependency in call.silent:
        return Level.FULL
    level = Level.STATIC
    if call.parts is not None:
        names = touch.parts or call.parts
        level = max(_part_level(call.parts[name], kind) for name in names)
    elif call.task is not None:
        level = _task_level(call.task, kind, timed=call.timed)
    return level if call.worst is None else min(level, call.worst)


def _task_level(task: Level, kind: Kind, *, timed: bool) -> Level:
    if kind == "killed" and not timed:
        return Level.FULL  # the job runs again elsewhere
    return Level.FAILED if kind in LOST_TIME else task


def _part_level(part: PartFacts, kind: Kind) -> Level:
    if not part.required:
        answered = Level.FULL if part.worst is Level.FAILED else part.worst
        return max(Level.REDUCED, answered)
    if part.stale and kind != "cold":
        return Level.STALE if part.worst is Level.FAILED else part.worst
    return Level.FAILED if kind in LOST_TIME else part.worst


def singles(
    call: CallFacts,
    touches: Mapping[str, Touch],
    dependencies: Mapping[str, Dependency],
    kinds: Collection[Kind] = KINDS,
) -> list[Run]:
    """Return a run for each fault that *call* can meet, given what it *touches* when healthy."""
    return [_run(call, touches, planned) for planned in _faults(touches, dependencies, kinds)]


def pairs(
    call: CallFacts,
    touches: Mapping[str, Touch],
    seen: Mapping[Planned, Collection[str]],
    dependencies: Mapping[str, Dependency],
    kinds: Collection[Kind] = KINDS,
) -> tuple[list[Run], int]:
    """Return a run for each pair of faults that can meet, and how many pairs cannot.

    Two faults cannot meet if they are of the same dependency; if the call, under one of them, never
    comes to call the other's dependency; or if they strike different parts of a fan-out, as each
    part answers as under its own fault alone.

    Args:
        call: What is called.
        touches: By dependency: those of the healthy call, and those seen only under a fault, such
            as the calls of a fallback.
        seen: For each single fault that was tried, the dependencies that were called under it. One
            of a dependency that is called only under another fault was not tried.
        dependencies: Of the app.
        kinds: Which kinds of faults to try.
    """
    every = list(combinations(_faults(touches, dependencies, kinds), 2))
    runs = [_run(call, touches, *both) for both in every if _can_meet(*both, touches, seen)]
    return runs, len(every) - len(runs)


def _faults(
    touches: Mapping[str, Touch],
    dependencies: Mapping[str, Dependency],
    kinds: Collection[Kind],
) -> list[Planned]:
    return [
        Planned(name, kind)
        for name, touch in sorted(touches.items())
        for kind in kinds_of(touch, dependencies[name])
        if kind in kinds
    ]


def _run(call: CallFacts, touches: Mapping[str, Touch], *faults: Planned) -> Run:
    levels = [worst_level(call, touches[one.dependency], one.kind) for one in faults]
    return Run(call=call.name, faults=faults, worst=max(levels))


def _can_meet(
    one: Planned,
    other: Planned,
    touches: Mapping[str, Touch],
    seen: Mapping[Planned, Collection[str]],
) -> bool:
    if one.dependency == other.dependency:
        return False
    parts = touches[one.dependency].parts, touches[other.dependency].parts
    if all(parts) and not parts[0] & parts[1]:
        return False
    both = (_beside(one, other, seen), other), (_beside(other, one, seen), one)
    tried = [(alone, beside) for alone, beside in both if alone in seen]
    return bool(tried) and all(beside.dependency in seen[alone] for alone, beside in tried)


def _beside(one: Planned, other: Planned, seen: Mapping[Planned, Collection[str]]) -> Planned:
    """Return the single fault that acts as *one* does beside *other*.

    What `cold` forgets cannot stand in for the other dependency either.
    """
    cold = Planned(one.dependency, "cold")
    return cold if other.kind == "cold" and cold in seen else one
