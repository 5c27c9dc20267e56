"""What an app declares of a call, and what its records show that it calls."""

import math
import os
from collections.abc import Iterable, Sequence
from typing import Any, Final

from resilience.chaos.proving.call import Call
from resilience.chaos.proving.plan import CallFacts, PartFacts, Run, Touch
from resilience.chaos.proving.records import Record
from resilience.fallback import Step
from resilience.levels import Level
from resilience.monitor.checking.answers import answers_of
from resilience.tasks import FanOut
from resilience.tasks.resilience import Resilience

PUBLISH_SECONDS: Final = 1.0
"""A job that the ledger keeps is taken within this time."""
REDELIVERY_SECONDS: Final = 8.0
"""A job of a killed worker runs elsewhere within this time."""
ROUND_TRIP_SECONDS: Final = 0.5
"""What publishing a job and fetching its result may take besides its run."""
LATE_SECONDS: Final = 2.0
"""Within so long after it is taken, a job over its deadline is answered."""


def worst_of(task: Any) -> Level:  # noqa: ANN401 - a task of any class
    """Return the level of the last step of a task's chain; FAILED if it has none."""
    steps: Sequence[Step] = getattr(task, "fallbacks", ())
    return steps[-1].level if steps else Level.FAILED


def call_facts(name: str, call: Call) -> CallFacts:
    """Return what is declared of *call*."""
    parts = None
    if isinstance(call.target, FanOut):
        parts = {
            part: PartFacts(
                worst=worst_of(one.signature.type),
                required=one.required,
                stale=one.stale is not None,
            )
            for part, one in call.target.parts.items()
        }
    return CallFacts(
        name=name,
        task=None if call.task is None else worst_of(call.task),
        parts=parts,
        timed=call.budget is not None,
        worst=call.worst,
        required=frozenset(call.required),
        silent=frozenset(call.silent),
    )


def touches_of(
    adopted: Resilience, facts: CallFacts, records: Iterable[Record]
) -> dict[str, Touch]:
    """Return which dependencies were called, and how, by name.

    Args:
        adopted: The app.
        facts: What is declared of the call.
        records: Of one call or several.
    """
    records = list(records)
    published = {one["id"]: one for one in records if one["record"] == "published"}
    found: dict[str, list[Record]] = {}
    for one in records:
        if one["record"] == "FaultInjected":
            found.setdefault(one["dependency"], []).append(one)
    touches = {}
    for name, calls in found.items():
        tasks = [adopted.app.tasks.get(one["call"]) for one in calls]
        jobs = [published[one["job"]] for one in calls if one["job"] in published]
        parts = {one["part"] for one in jobs}.intersection(facts.parts or ())
        touches[name] = Touch(
            dependency=name,
            job=any(getattr(task, "dependency", None) == name for task in tasks),
            worker=any(one["pid"] != os.getpid() for one in calls),
            budget=max((one["budget"] for one in calls if one["budget"]), default=None),
            kept=all(getattr(task, "_kept", False) for task in tasks),
            parts=frozenset(parts),
            remembered=any(one["stale"] for one in jobs) or any(map(_remembers, tasks)),
        )
    return touches


def _remembers(task: Any) -> bool:  # noqa: ANN401 - a task of any class, or None
    return any(hasattr(step, "max_age") for step in getattr(task, "fallbacks", ()))


def predicted_seconds(adopted: Resilience, call: Call) -> float | None:
    """Return what `resilience check` predicts of a task in the worst case; None: no end."""
    if call.task is None:
        return None
    for answer in answers_of(adopted.app, adopted.dependencies):
        if answer.task.name == call.task.name:
            worst = answer.run_seconds * answer.attempts + answer.waits
            return worst + ROUND_TRIP_SECONDS if math.isfinite(worst) else None
    return None


def limit_of(call: Call, predicted: float | None, run: Run | None) -> float | None:
    """Return the seconds in which *call* must answer under *run*; None: nothing limits it.

    Without a budget a task has as long as is *predicted*.
    """
    if getattr(call.task, "_kept", False):
        return PUBLISH_SECONDS
    limit = call.budget or predicted
    if limit is None or call.task is None or run is None:
        return limit
    # A job that is dropped, or runs elsewhere, is answered after its budget.
    kinds = {one.kind for one in run.faults}
    return limit + LATE_SECONDS * ("late" in kinds) + REDELIVERY_SECONDS * ("killed" in kinds)
