"""The rules of `resilience check` that need to know only what an app declares."""

import dataclasses
import math
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from celery import Task

from resilience.breaker.classify import FAILED, Classifier
from resilience.dependency import Dependency
from resilience.errors import AttemptTimeoutError
from resilience.fallback import FunctionStep
from resilience.monitor.checking.answers import Answer
from resilience.monitor.checking.calls import calls_of

RULES: Final = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
"""What each rule says, by its id."""


@dataclasses.dataclass(frozen=True, slots=True)
class Finding:
    """Something that a rule objects to.

    Attributes:
        rule: Its id.
        severity: `error`, `warning`, or `note`: what could not be found out.
        place: Which task, dependency, queue or setting it is about.
        message: What is wrong, with the value.
        mend: What to change.
        file: Where it is written; empty: that is not known.
        line: Of that file.
    """

    rule: str
    severity: str
    place: str
    message: str
    mend: str
    file: str = ""
    line: int = 1


def finding_of(rule: str, place: str, severity: str | None = None, **values: object) -> Finding:
    """Return what *rule* says of *values*; as severe as the rule unless told otherwise."""
    said = RULES[rule]
    message, mend = (said[part].format(**values) for part in ("message", "mend"))
    return Finding(rule, severity or said["severity"], place, message, mend)


def check_task(one: Answer, others: Iterable[Answer]) -> Iterator[Finding]:
    """Yield what is wrong with a task; *others* are all of its app."""
    file, line = one.where
    for finding in [*_check_call(one), *_check_retries(one, others)]:
        yield dataclasses.replace(finding, file=file, line=line)


def _check_call(one: Answer) -> Iterator[Finding]:
    known, task, place = one.dependency, one.task, f"task {one.task.name}"
    if known is None:
        return
    name, chain = known.name, getattr(task, "fallbacks", ())
    if one.timeout is None and one.budget is None:
        base = type(task).__mro__[1].__name__
        yield finding_of("no-timeout", place, dependency=name, timeout=known.timeout, base=base)
    if one.timeout and one.budget is not None and one.run_seconds >= one.budget:
        yield finding_of("over-budget", place, run=one.run_seconds, budget=one.budget)
    may_be_lost = task.expires is not None or one.options
    heard = not task.ignore_result or type(task).on_failure is not Task.on_failure
    if not (may_be_lost or heard or chain or one.attempts > 1):
        # A part of a fan-out is heard although the app ignores results.
        severity = "warning" if task.app.conf.task_ignore_result else None
        yield finding_of("no-answer", place, severity, dependency=name)
    for step in (one for one in chain if isinstance(one, FunctionStep)):
        calls = calls_of(step.function)
        both = {text for _, text in calls.texts & one.calls.texts}
        if name in calls.dependencies | both:
            yield finding_of("fallback-same-dependency", place, step=step.source, dependency=name)


def _check_retries(one: Answer, others: Iterable[Answer]) -> Iterator[Finding]:
    place = f"task {one.task.name}"
    for name, value in one.odd.items():
        yield finding_of("odd-retry", place, option=name, value=value)
    if one.lock_step:
        yield finding_of("lock-step-retries", place, retries=one.attempts - 1)
    for other in others if one.attempts > 1 else ():
        name, calls = other.task.name, one.attempts * other.attempts
        if other is not one and name in one.calls.tasks and other.attempts > 1:
            yield finding_of("retry-amplification", place, inner=name, calls=calls)


def check_dependencies(known: Iterable[Dependency], answers: Iterable[Answer]) -> Iterator[Finding]:
    """Yield what is wrong with the dependencies of an app."""
    used = {one.dependency.name for one in answers if one.dependency}
    for one in known:
        place = f"Dependency({one.name!r})"
        if why := _why_never(one):
            yield finding_of("breaker-never-trips", place, why[1], why=why[0])
        if one.name not in used and not one.tasks:
            yield finding_of("worker-without-queue", place, queue=one.queue)


def _why_never(one: Dependency) -> tuple[str, str | None] | None:
    """Return why the circuit of a dependency cannot open, and how bad that is."""
    policy, timeout = one.breaker, one.timeout or math.inf
    if policy is None or (policy.slow_seconds is not None and policy.slow_seconds < timeout):
        return None
    judge = Classifier(dataclasses.replace(policy, failure_if=None), (), one.bugs)
    named = any(not issubclass(kind, policy.ignore) for kind in policy.count)
    fails = any(
        judge.kind(error) == FAILED for error in (AttemptTimeoutError("", 1.0), Exception())
    )
    if not (fails or named or policy.failure_if_result):
        return "`ignore` or `bugs` covers every failure", None
    if policy.consecutive_failures is None and policy.failure_ratio is None:
        return f"slow_seconds={policy.slow_seconds}: a call is cut after {timeout:g} s", None
    at_once = one.slots or one.concurrency
    most = at_once * policy.window_seconds / timeout
    if policy.consecutive_failures or timeout == math.inf or most >= policy.minimum_calls:
        return None
    said = f"minimum_calls={policy.minimum_calls}, but {at_once} at once that all time out make "
    said += f"{most:.3g} calls in {policy.window_seconds} s"
    # More workers make more calls, unless the whole fleet has no more slots.
    return (said, None) if one.slots else (f"{said} in one worker", "warning")
