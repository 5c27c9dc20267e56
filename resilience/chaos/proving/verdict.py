"""What an answer says of itself, and which promises a run has broken; nothing here runs."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from resilience.chaos.proving.plan import Planned, Run
from resilience.chaos.proving.records import Record
from resilience.levels import Level
from resilience.outcome import JsonAnswer
from resilience.tasks.response import NOT_IN_TIME

TOLERANCE: Final = 1.1
"""An answer may take so much of its budget."""
ANNOUNCEMENTS: Final = frozenset(
    {"AnswerDegraded", "BudgetExceeded", "BulkheadFull", "DegradedValuePassed"}
    | {"FallbacksExhausted", "FanOutFinished", "JobRefused", "ReadStale"}
)
"""Events that tell of a degraded answer."""
FAILING: Final = frozenset({"error", "hang", "execute-then-timeout", "cold", "refused"})
"""Kinds under which each call of the dependency fails."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came back of a call.

    Attributes:
        level: How good it says it is; FAILED for an exception.
        source: What answered: a step, the parts that are missing or degraded, or an exception.
        unmarked: What it should say of itself, and does not.
    """

    level: Level
    source: str = ""
    unmarked: tuple[str, ...] = ()


def read_answer(value: object) -> Answer:
    """Return what *value* says of itself: an answer of this library, its JSON, or anything."""
    if isinstance(value, JsonAnswer):
        value = value.to_dict()
    meta = value.get("_meta") if isinstance(value, Mapping) else None
    if not isinstance(meta, Mapping) or not isinstance(meta.get("level"), int):
        return Answer(level=Level.FULL)
    level = Level(meta["level"])
    if "reasons" not in meta:
        lacking = [name for name in ("reason", "dependency") if not meta.get(name)]
        return Answer(
            level=level,
            source=meta.get("source") or "",
            unmarked=tuple(lacking) if level > Level.FULL else (),
        )
    sources: Mapping[str, str] = meta.get("sources", {})
    degraded, missing = meta.get("degraded", []), meta.get("missing", [])
    if level is Level.FAILED:
        # A required part ends the response; others that had no time left say nothing.
        ended = [name for name in missing if meta["reasons"].get(name) != NOT_IN_TIME]
        degraded, missing = ([], ended) if ended else (degraded, missing)
    parts = [f"{name}: {sources.get(name, 'degraded')}" for name in sorted(degraded)]
    parts += [f"{name}: missing" for name in sorted(missing)]
    lacking = [
        f"reason of {name}" for name in (*degraded, *missing) if not meta["reasons"].get(name)
    ]
    if level > Level.FULL and not parts:
        lacking.append("which part is missing or degraded")
    return Answer(level=level, source=", ".join(parts), unmarked=tuple(lacking))


@dataclass(slots=True, kw_only=True)
class Observed:
    """What was seen of one run, as far as it has come.

    Attributes:
        answer: None: none came in time.
        seconds: How long it took.
        limit: Seconds that it may take; None: nothing limits it.
        waited: Seconds after which the proof gave up.
        late: Seconds that a pause of this process was too long meanwhile: the machine's delay.
        records: What all processes wrote, from before the call until its jobs had ended.
        injected: Those of the planned faults that struck.
        lost: Jobs that are neither done nor in the ledger, nor in the broker.
        effects: How often the call had its effect; 0 if nobody counts.
        never_opened: Dependencies whose circuit stayed closed, and after how many failures.
        healthy: Level of the first answer without a fault.
        recovered: Level of the last answer after the faults had ended; None: none came.
        recovery_seconds: How long it took until that was as good as the first.
    """

    limit: float | None
    waited: float
    healthy: Level = Level.FULL
    answer: Answer | None = None
    seconds: float = 0.0
    late: float = 0.0
    records: Sequence[Record] = ()
    injected: frozenset[Planned] = frozenset()
    lost: Sequence[str] = ()
    effects: int = 0
    never_opened: dict[str, int] = field(default_factory=dict)
    recovered: Level | None = None
    recovery_seconds: float = 0.0


def broken(run: Run, seen: Observed, *, kept: Iterable[str], silent: Iterable[str]) -> list[str]:
    """Return the promises that a run has broken, each in one sentence.

    Args:
        run: What was tried.
        seen: What was seen.
        kept: Tasks whose jobs the ledger keeps.
        silent: Dependencies whose failure changes no answer.
    """
    found = [*_level(run, seen), *_time(run, seen), *_marks(run, seen, set(kept), set(silent))]
    found += [*_injected(run, seen), *_once(seen), *_afterwards(seen)]
    return [f"{run}: {sentence}" for sentence in found]


def _level(run: Run, seen: Observed) -> Iterator[str]:
    if seen.answer is None or seen.answer.level <= run.worst:
        return
    said, worst = seen.answer, run.worst
    source = f" ({said.source})" if said.source else ""
    mend = (
        "give the chain a last step that cannot fail, such as fallback.static(…), make the part "
        "optional, or say required=[…] of the call if it may fail"
        if said.level is Level.FAILED
        else "declare that level, or give the chain a better step"
    )
    yield (
        f"the answer is {said.level.name}{source}, but {worst.name} is the worst that is declared; "
        f"{mend}"
    )


def _time(run: Run, seen: Observed) -> Iterator[str]:
    if seen.answer is None:
        limits = "nothing limits it" if seen.limit is None else f"its limit is {seen.limit:.3g} s"
        yield (
            f"no answer came within {seen.waited:.3g} s, and {limits}; give the dependency a "
            "timeout and the call a budget"
        )
    elif seen.limit is not None and seen.seconds > seen.limit * TOLERANCE + seen.late:
        yield (
            f"the answer took {seen.seconds:.3f} s, but its limit is {seen.limit:.3g} s; give "
            f"{run.faults[0].dependency} a shorter timeout, or the call more time"
        )


def _marks(run: Run, seen: Observed, kept: set[str], silent: set[str]) -> Iterator[str]:
    answer = seen.answer
    if answer is None or (answer.level is Level.FAILED and not answer.unmarked):
        return
    if answer.unmarked:
        lacking = ", ".join(answer.unmarked)
        yield (
            f"the answer is {answer.level.name} and does not say: {lacking}; give the Outcome or "
            "PartialResponse that is made by hand all of these"
        )
    told = {one["record"] for one in seen.records}
    if answer.level > seen.healthy and not told & ANNOUNCEMENTS:
        yield (
            f"the answer is {answer.level.name}, and no event announces it; degrade through a "
            "fallback chain, a fan-out or a budget, which announce it"
        )
    if answer.level > Level.FULL:
        return
    failing = {one.dependency for one in run.faults if one.kind in FAILING} - silent
    for call, dependency in sorted(_failed_calls(seen.records, failing, kept)):
        yield (
            f"the answer claims to be FULL, although the call {call} of {dependency} failed; let a "
            "fallback chain mark it, publish the job as a FireAndForgetTask, or name the "
            "dependency in silent=[…]"
        )


def _failed_calls(
    records: Iterable[Record], dependencies: set[str], kept: set[str]
) -> set[tuple[str, str]]:
    """Return calls of *dependencies* that failed in a job that nobody keeps."""
    failed = set()
    for one in records:
        dependency = one.get("dependency")
        if dependency not in dependencies:
            continue
        if one["record"] == "FaultInjected" and one["kind"] != "latency":
            failed.add((str(one["call"]), str(dependency)))
        elif one["record"] == "failed":
            failed.add((str(one["task"]), str(dependency)))
    return {(call, dependency) for call, dependency in failed if call not in kept}


def _injected(run: Run, seen: Observed) -> Iterator[str]:
    for planned in run.faults:
        if planned not in seen.injected:
            yield (
                f"the fault {planned} was planned and never struck, so nothing is proved; does the "
                "call still come to that dependency?"
            )
    for name, calls in seen.never_opened.items():
        yield (
            f"the circuit of {name} did not open after {calls} timeouts in a row; narrow its "
            "`ignore`, or say breaker=None"
        )


def _once(seen: Observed) -> Iterator[str]:
    if seen.effects > 1:
        yield (
            f"one call had its effect {seen.effects} times; hand the dependency an idempotency "
            "key, or do not try again what may have been done"
        )
    for key, times in _runs(seen.records).items():
        if times > 1:
            yield (
                f"jobs with the idempotency key {key} ran to their end {times} times; do all "
                "workers use one ledger?"
            )


def _runs(records: Iterable[Record]) -> dict[str, int]:
    """Return how often a body ran to its end, by idempotency key."""
    ran: set[Any] = set()
    runs: dict[str, int] = {}
    for one in records:
        if one["record"] == "FaultInjected":
            ran.add(one["job"])
        elif one["record"] in {"succeeded", "failed"} and one["id"] in ran:
            ran.discard(one["id"])
            if one["record"] == "succeeded" and one.get("key"):
                runs[one["key"]] = runs.get(one["key"], 0) + 1
    return runs


def _afterwards(seen: Observed) -> Iterator[str]:
    for job in seen.lost:
        yield (
            f"the job {job} is lost: it is neither done nor in the ledger; publish it as a "
            "FireAndForgetTask, or with acks_late"
        )
    if seen.recovered is None or seen.recovered > seen.healthy:
        level = "no answer" if seen.recovered is None else f"a {seen.recovered.name} one"
        yield (
            f"{seen.recovery_seconds:.3g} s after the fault had ended there was still {level}; "
            "what keeps the dependency from being called?"
        )
