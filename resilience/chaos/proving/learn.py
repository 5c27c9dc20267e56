"""What an app declares of a call, and what its records show that it calls."""

import math
import os
from collections.abc import Iterable, Sequence
from typing import Any, Final

from resilience.chaos.proving.call import Call
from resilience.chaos.proving.plan import CallFacts, PartFacts, Run, TaskFacts, Touch
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


def task_facts(task: Any) -> TaskFacts:  # noqa: ANN401 - a task of any class
    """Return what *task* declares."""
    steps: Sequence[Step] = getattr(task, "fallbacks", ())
    return TaskFacts(
        worst=steps[-1].level if steps else Level.FAILED,
        remembers=any(hasattr(step, "max_age") for step in steps),
        kept=bool(getattr(task, "_kept", False)),
    )


def call_facts(name: str, call: Call) -> CallFacts:
    """Return what is declared of *call*."""
    parts = None
    if isinstance(call.target, FanOut):
        parts = {
            part: PartFacts(
                task=task_facts(one.signature.type),
                required=one.required,
                stale=one.stale is not None,
            )
            for part, one in call.target.parts.items()
        }
    return CallFacts(
        name=name,
        task=None if call.task is None else task_facts(call.task),
        parts=parts,
        timed=call.budget is not None,
        worst=call.worst,
        required=frozenset(call.required),
        silent=frozenset(call.silent),
    )


def touches_of(
    adopted: Resilience, facts: CallFacts, records: Iterable[Record], *, remembered: bool
) -> dict[str, Touch]:
    """Return which dependencies were called, and how, by name.

    Args:
        adopted: The app.
        facts: What is declared of the call.
        records: Of one call or several.
        remembered: Whether a function's answers may come from what is remembered.
    """
    records = list(records)
    part_of = {one["id"]: one["part"] for one in records if one["record"] == "published"}
    found: dict[str, list[Record]] = {}
    for one in records:
        if one["record"] == "FaultInjected":
            found.setdefault(one["dependency"], []).append(one)
    touches = {}
    for name, calls in found.items():
        tasks = [adopted.app.tasks.get(one["call"]) for one in calls]
        parts = frozenset(part_of.get(one["job"]) or "" for one in calls) - {""}
        parts = frozenset() if facts.parts is None else parts & facts.parts.keys()
        budgets = [one["budget"] for one in calls if one["budget"] is not None]
        own = [getattr(task, "dependency", None) == name for task in tasks]
        touches[name] = Touch(
            dependency=name,
            job=any(own),
            worker=any(one["pid"] != os.getpid() for one in calls),
            budget=max(budgets, default=None),
            kept=all(getattr(task, "_kept", False) for task in tasks),
            parts=parts,
            remembered=_remembers(facts, parts, remembered),
        )
    return touches


def _remembers(facts: CallFacts, parts: Iterable[str], otherwise: bool) -> bool:  # noqa: FBT001 - private
    if facts.parts is not None:
        some = [facts.parts[name] for name in parts] or list(facts.parts.values())
        return any(one.stale or one.task.remembers for one in some)
    return otherwise if facts.task is None else facts.task.remembers


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
