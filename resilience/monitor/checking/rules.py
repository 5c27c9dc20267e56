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
"""The severity and the texts of each rule, by its id."""


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
    """Return a finding of *rule* about *values*; *severity* replaces that of the rule."""
    texts = RULES[rule]
    message, mend = (texts[part].format(**values) for part in ("message", "mend"))
    return Finding(rule, severity or texts["severity"], place, message, mend)


def check_task(answer: Answer, others: Iterable[Answer]) -> Iterator[Finding]:
    """Yield what is wrong with a task; *others* are all tasks of its app."""
    file, line = answer.where
    for finding in [*_check_call(answer), *_check_retries(answer, others)]:
        yield dataclasses.replace(finding, file=file, line=line)


def _check_call(answer: Answer) -> Iterator[Finding]:
    known, task, place = answer.dependency, answer.task, f"task {answer.task.name}"
    if known is None:
        return
    name, chain = known.name, getattr(task, "fallbacks", ())
    if answer.timeout is None and answer.budget is None:
        base = type(task).__mro__[1].__name__
        yield finding_of("no-timeout", place, dependency=name, timeout=known.timeout, base=base)
    if answer.timeout and answer.budget is not None and answer.run_seconds >= answer.budget:
        yield finding_of("over-budget", place, run=answer.run_seconds, budget=answer.budget)
    may_be_lost = task.expires is not None or answer.options
    heard = not task.ignore_result or type(task).on_failure is not Task.on_failure
    if not (may_be_lost or heard or chain or answer.attempts > 1):
        # A part of a fan-out is heard although the app ignores results.
        severity = "warning" if task.app.conf.task_ignore_result else None
        yield finding_of("no-answer", place, severity, dependency=name)
    for step in (step for step in chain if isinstance(step, FunctionStep)):
        calls = calls_of(step.function)
        both = {text for _, text in calls.texts & answer.calls.texts}
        if name in calls.dependencies | both:
            yield finding_of("fallback-same-dependency", place, step=step.source, dependency=name)


def _check_retries(answer: Answer, others: Iterable[Answer]) -> Iterator[Finding]:
    place = f"task {answer.task.name}"
    for name, value in answer.odd.items():
        yield finding_of("odd-retry", place, option=name, value=value)
    if answer.lock_step:
        yield finding_of("lock-step-retries", place, retries=answer.attempts - 1)
    for other in others if answer.attempts > 1 else ():
        name, calls = other.task.name, answer.attempts * other.attempts
        if other is not answer and name in answer.calls.tasks and other.attempts > 1:
            yield finding_of("retry-amplification", place, inner=name, calls=calls)


def check_dependencies(known: Iterable[Dependency], answers: Iterable[Answer]) -> Iterator[Finding]:
    """Yield what is wrong with the dependencies of an app."""
    used = {answer.dependency.name for answer in answers if answer.dependency}
    for dependency in known:
        place = f"Dependency({dependency.name!r})"
        if why := _why_never(dependency):
            yield finding_of("breaker-never-trips", place, why[1], why=why[0])
        if dependency.name not in used and not dependency.tasks:
            yield finding_of("worker-without-queue", place, queue=dependency.queue)


def _why_never(dependency: Dependency) -> tuple[str, str | None] | None:
    """Return why the circuit of a dependency cannot open, and how bad that is."""
    policy, timeout = dependency.breaker, dependency.timeout or math.inf
    if policy is None or (policy.slow_seconds is not None and policy.slow_seconds < timeout):
        return None
    judge = Classifier(dataclasses.replace(policy, failure_if=None), (), dependency.bugs)
    named = any(not issubclass(kind, policy.ignore) for kind in policy.count)
    fails = any(
        judge.kind(error) == FAILED for error in (AttemptTimeoutError("", 1.0), Exception())
    )
    if not (fails or named or policy.failure_if_result):
        return "`ignore` or `bugs` covers every failure", None
    if policy.consecutive_failures is None and policy.failure_ratio is None:
        return f"slow_seconds={policy.slow_seconds}: a call is cut after {timeout:g} s", None
    at_once = dependency.slots or dependency.concurrency
    most = at_once * policy.window_seconds / timeout
    if policy.consecutive_failures or timeout == math.inf or most >= policy.minimum_calls:
        return None
    why = f"minimum_calls={policy.minimum_calls}, but {at_once} at once that all time out make "
    why += f"{most:.3g} calls in {policy.window_seconds} s"
    # More workers make more calls, unless the whole fleet has no more slots.
    return (why, None) if dependency.slots else (f"{why} in one worker", "warning")
