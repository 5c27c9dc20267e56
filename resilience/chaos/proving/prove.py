"""Makes each call under each of its faults, in a running fleet, and judges the answers."""

import os
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Final

from resilience.chaos.proving import inject, plan, verdict
from resilience.chaos.proving.asking import Asked
from resilience.chaos.proving.call import Call
from resilience.chaos.proving.learn import call_facts, limit_of, predicted_seconds, touches_of
from resilience.chaos.proving.memory import forgotten
from resilience.chaos.proving.plan import Kind, Planned, Run, Touch
from resilience.chaos.proving.records import FILLER, Record, Records
from resilience.chaos.proving.report import NONE, Proof, Row
from resilience.chaos.proving.verdict import TOLERANCE, Answer, Observed
from resilience.clock import SystemClock
from resilience.errors import LedgerUnavailableError, SchemaError
from resilience.levels import Level
from resilience.tasks.resilience import Resilience

WARM_UPS: Final = 4
"""Healthy calls before the first that counts: processes import, and open connections."""
PATIENCE_SECONDS: Final = 30.0
"""How long to wait for an answer that nothing limits."""
LONGER_SECONDS: Final = 5.0
"""How long to wait for an answer beyond its limit."""
RECOVERY_SECONDS: Final = 10.0
SETTLE_SECONDS: Final = 3.0
"""How long to wait for the end of jobs that a call left behind, besides the timeout."""
TICK_SECONDS: Final = 0.05
ENDS: Final = frozenset(
    {"succeeded", "failed", "revoked", "BudgetExceeded", "JobParked", "JobBuried", "JobKept"}
)
"""Records of a job that is done, given up or in the ledger."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Where calls are proved.

    Attributes:
        adopted: The app, on a broker, store and ledger of its own.
        fleet: Its workers.
        records: What all processes write.
        kinds: Which faults to try.
        patience: Seconds to wait for an answer that nothing limits.
        report: Hears of the progress.
    """

    adopted: Resilience
    fleet: inject.Fleet
    records: Records
    kinds: Collection[Kind] = plan.KINDS
    patience: float = PATIENCE_SECONDS
    report: Callable[[str], None] = lambda _: None


def prove(stage: Stage, calls: Mapping[str, Call], *, pairs: bool = False) -> Proof:
    """Make all *calls* under each single fault, and under *pairs* of faults if asked to.

    Raises:
        StoreUnavailableError: The store does not answer.
    """
    began = SystemClock.monotonic()
    inject.Injections(stage.adopted, stage.fleet).mark_calls()
    rows: list[Row] = []
    pruned = 0
    for name, call in calls.items():
        trial = Trial(stage, name, call)
        rows.append(trial.healthy())
        if rows[-1].broken:
            continue
        rows += trial.under(trial.singles())
        if pairs:
            runs, without = trial.pairs()
            pruned += without
            rows += trial.under(runs)
    return Proof(rows=rows, pruned=pruned, seconds=SystemClock.monotonic() - began)


class Trial:
    """One call, and what has been learnt of it so far."""

    def __init__(self, stage: Stage, name: str, call: Call) -> None:
        """Know nothing yet."""
        self._stage = stage
        self._call = call
        self._facts = call_facts(name, call)
        self._injections = inject.Injections(stage.adopted, stage.fleet)
        self._predicted = predicted_seconds(stage.adopted, call)
        # Features that were shed meanwhile are restored one after the other.
        dwell = stage.adopted.shedding_policy.dwell_seconds
        self._recovery_seconds = RECOVERY_SECONDS + dwell * len(stage.adopted.features)
        self._possible = stage.adopted.dependencies, stage.kinds
        self._level = Level.FULL
        self._touches: dict[str, Touch] = {}
        self._seen: dict[Planned, Collection[str]] = {}

    def healthy(self) -> Row:
        """Make the call without a fault, several times, and learn what it calls."""
        inject.spread(self._stage.adopted, self._stage.adopted.dependencies)
        begin = self._stage.records.position()
        for _ in range(WARM_UPS):
            self._ask()
        asked = self._ask()
        self._settle(begin, seconds=SETTLE_SECONDS)
        records = _of_call(self._stage.records.since(begin))
        self._touches = touches_of(self._stage.adopted, self._facts, records)
        self._level = Level.FAILED if asked.answer is None else asked.answer.level
        broken = []
        if self._level is Level.FAILED:
            source = "no answer" if asked.answer is None else asked.answer.source
            broken = [f"{self._facts.name}: without any fault it fails: {source}; mend that first"]
        elif not self._touches:
            broken = [f"{self._facts.name}: it calls no dependency through a pipeline or a task"]
        return self._row(NONE, asked.answer, asked.seconds, broken)

    def singles(self) -> list[Run]:
        """Return the single faults to try."""
        return plan.singles(self._facts, self._touches, *self._possible)

    def pairs(self) -> tuple[list[Run], int]:
        """Return the pairs of faults to try, and how many there are besides; see `plan.pairs`."""
        return plan.pairs(self._facts, self._touches, self._seen, *self._possible)

    def under(self, runs: Sequence[Run]) -> Iterator[Row]:
        """Make the call under the faults of each of *runs*, and judge its answers."""
        tasks = self._stage.adopted.app.tasks
        kept = [name for name, task in tasks.items() if getattr(task, "_kept", False)]
        for number, run in enumerate(runs, 1):
            seen = self._try(run)
            if not seen.injected.issuperset(run.faults):
                seen = self._try(run)  # a process may have been late to know of it
            sentences = verdict.broken(run, seen, kept=kept, silent=self._call.silent)
            row = self._row(run.fault, seen.answer, seen.seconds, sentences)
            self._stage.report(
                f"{number}/{len(runs)} {run}: {row.level} in {row.seconds:.2f} s"
                + f", {len(sentences)} broken" * bool(sentences)
            )
            yield row

    def _try(self, run: Run) -> Observed:
        """Make the call under the faults of *run*, and wait for all that it leads to."""
        stage, kinds, before = self._stage, {one.kind for one in run.faults}, self._effects()
        seen = Observed(
            limit=limit_of(self._call, self._predicted, run),
            waited=self._patience(run),
            healthy=self._level,
        )
        with ExitStack() as stack:
            if "cold" in kinds:
                stack.enter_context(forgotten(stage.adopted))
            # The order matters: an open circuit would keep other faults from striking.
            for planned in sorted(run.faults, key=lambda one: one.kind == "refused"):
                seen.never_opened |= stack.enter_context(self._injections.in_force(planned))
            inject.spread(stage.adopted, [one.dependency for one in run.faults])
            begin = stage.records.position()
            asked = Asked(self._call, seconds=seen.waited)
            killed = [one for one in run.faults if self._kill(one, begin, asked)]
            if "late" in kinds:
                deadline = max(map(self._budget, run.faults)) * TOLERANCE
                threading.Event().wait(max(0.0, deadline - asked.seconds))
                stack.close()  # what is late is taken now
            asked.wait()
            self._settle(begin, seconds=self._settle_seconds(run))
        seen.answer, seen.seconds, seen.late = asked.answer, asked.seconds, asked.late
        seen.effects = self._effects() - before
        seen.records = _of_call(stage.records.since(begin))
        tasks = stage.adopted.app.tasks
        seen.injected = frozenset(
            one for one in run.faults if one in killed or inject.struck(one, seen.records, tasks)
        )
        touched = touches_of(stage.adopted, self._facts, seen.records)
        self._touches = touched | self._touches
        if len(run.faults) == 1:
            self._seen[run.faults[0]] = touched.keys()
        names = {one.dependency for one in run.faults}
        seen.recovered, seen.recovery_seconds = self._recover(names)
        seen.lost = list(self._lost(begin, _published(seen.records)))
        return seen

    def _effects(self) -> int:
        return 0 if self._call.effects is None else self._call.effects()

    def _ask(self) -> Asked:
        asked = Asked(self._call, seconds=self._patience(None))
        asked.wait()
        return asked

    def _budget(self, planned: Planned) -> float:
        """Return after how many seconds a job is dropped that a `late` fault keeps."""
        budget = self._call.budget or self._touches[planned.dependency].budget or 0.0
        return budget if planned.kind == "late" else 0.0

    def _kill(self, planned: Planned, begin: int, asked: Asked) -> bool:
        """Kill the worker that a fault keeps; the job then runs elsewhere without the fault."""
        tick, fault, killed = threading.Event(), inject.name_of(planned), False
        if planned.kind != "killed":
            return False
        until = SystemClock.monotonic() + SETTLE_SECONDS
        # A job that nobody waits for may begin after the answer.
        while not killed and (not asked.over or SystemClock.monotonic() < until):
            for one in self._stage.records.since(begin):
                if one.get("fault") == fault and one["pid"] != os.getpid():
                    self._injections.end(planned)
                    killed = self._stage.fleet.kill(one["pid"])
                    break
            tick.wait(TICK_SECONDS)
        return killed

    def _patience(self, run: Run | None) -> float:
        limit = limit_of(self._call, self._predicted, run)
        return self._stage.patience if limit is None else limit * TOLERANCE + LONGER_SECONDS

    def _settle_seconds(self, run: Run) -> float:
        timeouts = [self._stage.adopted.dependencies[one.dependency].timeout for one in run.faults]
        killed = any(one.kind == "killed" for one in run.faults)
        return SETTLE_SECONDS + max((one or 0.0) for one in timeouts) + RECOVERY_SECONDS * killed

    def _settle(self, begin: int, *, seconds: float) -> None:
        """Wait until all jobs that were published since *begin* have ended, or for *seconds*."""
        until, tick = SystemClock.monotonic() + seconds, threading.Event()
        while SystemClock.monotonic() < until:
            records = self._stage.records.since(begin)
            if not _published(records).keys() - _ended(records):
                return
            tick.wait(TICK_SECONDS)

    def _recover(self, names: Iterable[str]) -> tuple[Level | None, float]:
        """Call again until the answer is as good as it was; return its level and the seconds."""
        self._stage.fleet.await_restarts()
        self._injections.close(names)
        began, level = SystemClock.monotonic(), None
        while True:
            inject.spread(self._stage.adopted, names)
            answer = self._ask().answer
            level = None if answer is None else answer.level
            took = SystemClock.monotonic() - began
            if (level is not None and level <= self._level) or took > self._recovery_seconds:
                return level, took
            self._injections.close(names)

    def _row(self, fault: str, answer: Answer | None, seconds: float, broken: Sequence[str]) -> Row:
        level, source = ("no answer", "") if answer is None else (answer.level.name, answer.source)
        name = self._facts.name
        return Row(name, fault, level, source, seconds=seconds, broken=tuple(broken))

    def _lost(self, begin: int, published: Mapping[str, str]) -> Iterator[str]:
        """Yield the jobs of a run that are neither done nor in the ledger, nor in the broker."""
        records = self._stage.records.since(begin)
        waiting = {one["id"] for one in records if one["record"] == "retried"}
        gone = published.keys() - _ended(records) - waiting
        if gone:
            # An app without jobs that are kept may have no ledger.
            with suppress(LedgerUnavailableError, SchemaError):
                gone -= self._stage.adopted.ledger.letters.states(gone).keys()
        for job in sorted(gone):
            yield f"{published[job]} {job}"


def _published(records: Iterable[Record]) -> dict[str, str]:
    """Return the names of the tasks whose jobs were published, by the job's id."""
    return {
        one["id"]: one["task"]
        for one in records
        if one["record"] == "published" and one["task"] != FILLER
    }


def _of_call(records: Sequence[Record]) -> list[Record]:
    """Return the records without those of jobs that an earlier call left behind."""
    own = {None, *_published(records)}
    return [
        one
        for one in records
        if one.get("job") in own and (one["record"] not in ENDS or one["id"] in own)
    ]


def _ended(records: Iterable[Record]) -> set[str]:
    return {one["id"] for one in records if one["record"] in ENDS}
