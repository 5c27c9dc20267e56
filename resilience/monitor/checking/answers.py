"""For each task: what happens when its dependency does not answer in time."""

import ast
import inspect
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from celery import Celery

from resilience.dependency import Dependency
from resilience.fallback import StaticStep
from resilience.monitor.checking.calls import Calls, calls_of
from resilience.tasks import ResilientTask
from resilience.tasks.router import BUILT_IN

LIMITS: Final = {"prefork": ("soft_time_limit", "time_limit"), "gevent": ("time_limit",)}
"""The time limits of Celery that a pool heeds."""
SUMMED_MAX: Final = 1_000
"""Waits are added up for at most so many attempts; more attempts count as endless."""

Retries = tuple[float, float, bool, Mapping[str, object]]
"""The last four attributes of an `Answer`."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What is known of a task.

    Attributes:
        task: The task itself.
        dependency: The dependency that its body calls, if any.
        budget: Seconds that a run may take by a time limit or the schedule; None: its caller says.
        calls: What its body calls.
        options: The options that beat publishes it with, one for each entry of the schedule.
        attempts: Calls in total, at most.
        waits: Seconds between them in the worst case, all together.
        lock_step: Whether jobs that failed together are retried together.
        odd: Options of its retries that Celery fails at, by name.
    """

    task: Any
    dependency: Dependency | None
    budget: float | None
    calls: Calls
    options: list[Mapping[str, Any]]
    attempts: float
    waits: float
    lock_step: bool
    odd: Mapping[str, object]

    @property
    def timeout(self) -> float | None:
        """Limit of a call; None: the library sets none."""
        guarded = self.dependency is not None and isinstance(self.task, ResilientTask)
        return self.dependency.timeout if self.dependency and guarded else None

    @property
    def is_kept(self) -> bool:
        """Whether the ledger keeps its jobs."""
        return bool(getattr(self.task, "_kept", False))

    @property
    def run_seconds(self) -> float:
        """How long one run takes in the worst case; each step of the chain has the timeout anew."""
        if self.timeout is None or self.dependency is None:
            return math.inf if self.budget is None else self.budget
        steps = sum(not isinstance(one, StaticStep) for one in self.task.fallbacks)
        waits = self.task.idempotency_key is not None and not self.is_kept
        return self.timeout * (1 + steps + waits + bool(self.dependency.slots))

    @property
    def where(self) -> tuple[str, int]:
        """File and line of its body."""
        code = getattr(inspect.unwrap(self.task.run), "__code__", None)
        return (code.co_filename, code.co_firstlineno) if code else ("", 1)

    def row(self) -> dict[str, Any]:
        """Return its row of the table; a time without an end is None."""
        again, chain = self.attempts > 1, getattr(self.task, "fallbacks", ())
        worst = self.run_seconds * self.attempts + self.waits
        last = "nobody hears of it" if self.task.ignore_result else "its caller gets the error"
        last = "an operator has the dead letter" if self.is_kept else last
        said = [*["the chain answers"] * bool(chain), *["it is tried again"] * again, last]
        if chain and isinstance(chain[-1], StaticStep):
            said = said[:1]
        return {
            "task": self.task.name,
            "dependency": self.dependency.name if self.dependency else None,
            "timeout": self.timeout,
            "budget": self.budget,
            "chain": " → ".join(map(repr, chain)) or None,
            "retry": f"{self.attempts:g} calls" if again else None,
            "ledger": self.is_kept,
            "idempotency": getattr(self.task, "idempotency_key", None),
            "worst_seconds": round(worst, 3) if math.isfinite(worst) else None,
            "then": "; else ".join(said),
        }


def answers_of(app: Celery[Any], known: Mapping[str, Dependency]) -> list[Answer]:
    """Return one per task of *app*; tasks of other apps in the process are left out."""
    answers = []
    entries = [one for one in (app.conf.beat_schedule or {}).values() if isinstance(one, dict)]
    for name, task in sorted(app.tasks.items()):
        named: str | None = getattr(task, "dependency", None)
        if name.startswith(BUILT_IN) or named not in {None, *known}:
            continue
        dependency, calls = known.get(str(named)), calls_of(task)
        options = [one.get("options") or {} for one in entries if one.get("task") == name]
        limits = LIMITS.get(dependency.pool if dependency else "prefork", ())
        given = [*(getattr(task, one) for one in limits), *(one.get("budget") for one in options)]
        budget = min((float(one) for one in given if one), default=None)
        again = _retries(task, calls.retries)
        answers.append(Answer(task, dependency, budget, calls, options, *again))
    return answers


def _retries(task: Any, by_hand: Iterable[ast.Call]) -> Retries:  # noqa: ANN401 - a task
    """Return how *task* is retried; *by_hand* are the calls of `self.retry` in its body."""
    if getattr(task, "_kept", False):
        policy = task.policy
        longest = [policy._longest(number) for number in range(1, policy.max_attempts)]  # noqa: SLF001 - its own bound
        waits = min(sum(longest), policy.give_up_after_seconds or math.inf)
        return policy.max_attempts, waits, False, {}
    given = {one.arg: one.value for call in by_hand for one in call.keywords}
    options: Any = {name: one.value for name, one in given.items() if isinstance(one, ast.Constant)}
    factor, is_fixed = 0.0, not {"eta", "countdown", None} & (given.keys() - options.keys())
    if getattr(task, "autoretry_for", ()):
        options = getattr(task, "retry_kwargs", {})
        factor = float(getattr(task, "retry_backoff", 0))
        is_fixed = not (factor and getattr(task, "retry_jitter", True))
    elif not by_hand:
        return 1, 0.0, False, {}
    usable, odd = _sorted_out(task, options)
    most = usable.get("max_retries", 0)
    if most is None or most > SUMMED_MAX:
        return math.inf, math.inf, is_fixed, odd
    fixed = usable.get("countdown") or usable.get("default_retry_delay") or 0.0
    longest = [factor * 2.0**number or fixed for number in range(int(most))]
    limit = getattr(task, "retry_backoff_max", 600) if factor else math.inf
    return most + 1, sum(min(one, limit) for one in longest), bool(most) and is_fixed, odd


def _sorted_out(task: Any, options: Any) -> tuple[dict[str, Any], dict[str, object]]:  # noqa: ANN401 - a task, and whatever somebody wrote
    """Return the retry options of *task*, with *options* on top, and those that Celery fails at."""
    usable: dict[str, Any] = {}
    odd = {} if isinstance(options, dict) else {"retry_kwargs": options}
    own = {name: getattr(task, name) for name in ("max_retries", "default_retry_delay")}
    for name, value in (*own.items(), *({} if odd else options).items()):
        if name in {*own, "countdown"}:
            number = isinstance(value, int | float) and value > -math.inf
            (usable if number or value is None else odd)[name] = value
    return usable, odd
