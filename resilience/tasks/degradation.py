"""The level of a whole app: the worst of what is open, held or shed now."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from celery import Celery

from resilience.breaker import Breaker
from resilience.breaker.keeper import NOT_ADMITTED
from resilience.breaker.state import MANUAL
from resilience.dependency import Catalogue, Dependency
from resilience.levels import Level
from resilience.tasks.shared import Shared


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """One thing that keeps answers from being FULL.

    Attributes:
        kind: `open`: a circuit; `held`: a dependency's queues, or one queue; `shed`: a feature.
        name: Of the dependency, queue or feature.
        level: How good answers are meanwhile.
        why: What a person, the controller or the circuit says.
        since: Fleet time at which it began, if that is known.
        until: Fleet time at which it ends by itself; None: open end.
    """

    kind: Literal["open", "held", "shed"]
    name: str
    level: Level
    why: str
    since: float | None = None
    until: float | None = None


@dataclass(frozen=True, slots=True)
class Degradation:
    """What is open, held or shed.

    Attributes:
        reasons: All there is.
    """

    reasons: tuple[Reason, ...]

    @property
    def level(self) -> Level:
        """The worst level of all reasons; FULL if there is none."""
        return max((one.level for one in self.reasons), default=Level.FULL)


def degradation_of(app: Celery[Any], shared: Shared, dependencies: Catalogue) -> Degradation:
    """Return what is open, held or shed, as far as this process knows; asks only the pulse.

    Orders to hold are known to workers, and to who has asked `Holds.all` for them.
    """
    opened = list(_open(app, shared, dependencies))  # first: this lets the pulse bring what is new
    now = shared.pulse.time()
    held = [
        Reason(
            kind="held",
            name=one.name,
            level=Level.STALE,
            why=one.reason,
            since=one.since,
            until=one.until,
        )
        for one in shared.holds.in_force(now)
    ]
    return Degradation((*opened, *held, *_shed(shared)))


def _open(app: Celery[Any], shared: Shared, dependencies: Catalogue) -> Iterator[Reason]:
    for name, dependency in dependencies.items():
        breaker = shared.breakers[name]
        if isinstance(breaker, Breaker) and (state := breaker.state) in NOT_ADMITTED:
            why = f"its circuit is {state}"
            if state in MANUAL:
                why += f": {breaker.circuit.reason}"
            left, level = breaker.seconds_left, _level_without(app, dependency)
            until = None if left is None else shared.pulse.time() + left
            since = breaker.circuit.generation / 1e6  # a circuit that never changed is closed
            yield Reason(kind="open", name=name, level=level, why=why, since=since, until=until)


def _shed(shared: Shared) -> Iterator[Reason]:
    for name, feature in shared.flags.features.items():
        found = shared.flags.decide(name)
        if feature.default and not found.enabled:
            yield Reason(
                kind="shed",
                name=name,
                level=found.level,
                why=f"{found.source}: {found.reason}",
                since=found.since,
                until=found.until,
            )


def levels_without(app: Celery[Any], dependency: Dependency) -> dict[str, Level]:
    """Return at which level each task of *dependency* answers while it is not called."""
    levels = {}
    for name, task in app.tasks.items():
        if getattr(task, "dependency", None) == dependency.name:
            steps = getattr(task, "fallbacks", ())
            waits = dependency.on_open == "hold" or getattr(task, "_kept", False)
            levels[name] = Level.STALE if waits else steps[0].level if steps else Level.FAILED
    return levels


def _level_without(app: Celery[Any], dependency: Dependency) -> Level:
    if dependency.on_open == "hold":
        return Level.STALE  # its jobs wait
    return max(levels_without(app, dependency).values(), default=Level.REDUCED)
