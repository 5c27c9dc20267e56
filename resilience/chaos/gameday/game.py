"""Runs a game day: the workload, the scheduled faults, and the verdict."""

import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Final, Protocol

from resilience.chaos.gameday import verdict
from resilience.chaos.gameday.checker import Jobs, check, unfinished
from resilience.chaos.gameday.load import Load, Request, call_of, make, times
from resilience.chaos.gameday.plan import FaultTable, Plan, Steady, level_of
from resilience.chaos.gameday.samples import Sample, sample
from resilience.chaos.proving.call import Call
from resilience.chaos.proving.records import Record, Records
from resilience.clock import SystemClock
from resilience.errors import (
    ConfigurationError,
    LedgerUnavailableError,
    SchemaError,
    StoreUnavailableError,
)
from resilience.tasks.resilience import Resilience

ACTOR: Final = "resilience gameday"
TICK_SECONDS: Final = 0.5
PROGRESS_TICKS: Final = 10
RECENT: Final = 20
"""Number of the latest requests that a stop condition checks."""
WARM_UPS: Final = 20
"""Most attempts until the steady state must hold: processes first import, and open connections."""
SETTLE_SECONDS: Final = 10.0
"""How long jobs may take to end after the last request."""
COMMAND_SECONDS: Final = 10.0


class Stage(Protocol):
    """The servers and the workers that the faults break."""

    def broken(self, fault: FaultTable) -> AbstractContextManager[None]:
        """Break a server, or kill a worker, for the block."""

    def await_restarts(self) -> None:
        """Wait until workers that were killed run again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Band:
    """The time during which a fault was in force, in seconds from the start of the workload."""

    fault: str
    begin: float
    end: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The outcome of a game day.

    Attributes:
        broken: A sentence for each promise that was broken.
        unjudged: Sentences that say why the promises could not be judged.
        jobs: All jobs, sorted by what became of them.
        requests: All requests of the workload.
        samples: The state of the app, twice a second.
        bands: When each fault was in force.
        recovery: Seconds from the end of the workload until the steady state held again; None: it
            did not hold again in time.
    """

    broken: list[str] = field(default_factory=list)
    unjudged: list[str] = field(default_factory=list)
    jobs: Jobs = field(default_factory=lambda: check([], []))
    requests: list[Request] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    bands: list[Band] = field(default_factory=list)
    recovery: float | None = None

    @property
    def verdict(self) -> str:
        """`kept`, `broken` or `not judged`."""
        return "broken" if self.broken else "not judged" if self.unjudged else "kept"


class Game:
    """A game day of one app."""

    def __init__(
        self,
        plan: Plan,
        adopted: Resilience,
        records: Records,
        report: Callable[[str], None],
    ) -> None:
        """Look up the calls, tasks and dependencies that the plan names.

        Raises:
            ConfigurationError: A call, a task or a dependency is unknown.
        """
        self._plan, self._adopted = plan, adopted
        self._records, self._report = records, report
        self._ended = threading.Event()
        self._unjudged: list[str] = []
        self._bands: list[Band] = []
        for number, fault in enumerate(plan.faults, 1):
            if fault.of_dependency:
                adopted.dependencies.require(fault.target, where=f"[[faults]] {number}, target")
        self._steady: list[tuple[Steady, Call]] = []
        for number, steady in enumerate(plan.steady, 1):
            with _placed(f"[[steady]] {number}, call"):
                self._steady.append((steady, call_of(adopted, steady, plan.calls)))
        due: list[tuple[float, str, Call]] = []
        for number, one in enumerate(plan.workload, 1):
            with _placed(f"[[workload]] {number}, call"):
                call = call_of(adopted, one, plan.calls)
            due += ((at, one.call, call) for at in times(one, plan.faults, plan.seconds))
        self._load = Load(due, self._ended)

    def play(self, stage: Stage) -> Result:
        """Run the game day on *stage* to its end, and judge it; no fault is left in force."""
        self._stage = stage
        wrong, position = [""], self._records.position()
        for _ in range(WARM_UPS):
            if not (wrong := self._unsteady()):
                break
        if wrong:
            return Result(unjudged=[f"no steady state before the workload: {wrong[0]}"])
        self._report("the steady state holds; the workload begins")
        samples = self._run_workload()
        workload_ended = SystemClock.monotonic()
        recovery = self._recover(workload_ended)  # also while requests still wait for an answer
        self._load.finish()
        records = self._settle(position)
        jobs = check(records, self._waiting(unfinished(records)))
        self._check_strikes(records)
        broken = verdict.broken(self._plan.promises, jobs, self._load.requests, recovery)
        return Result(
            broken=broken,
            unjudged=self._unjudged,
            jobs=jobs,
            requests=self._load.requests,
            samples=samples,
            bands=sorted(self._bands, key=lambda one: one.begin),
            recovery=recovery,
        )

    def _run_workload(self) -> list[Sample]:
        """Run the workload and the faults to their end; return samples of the app's state."""
        samples: list[Sample] = []
        self._load.start()
        with ThreadPoolExecutor(max(1, len(self._plan.faults))) as pool, ExitStack() as stack:
            stack.callback(self._ended.set)  # ends all faults before the pool waits for them
            played = [pool.submit(self._strike, one) for one in self._plan.faults]
            while not self._ended.wait(TICK_SECONDS) and self._load.elapsed() < self._plan.seconds:
                samples.append(sample(self._adopted, self._load.elapsed()))
                if len(samples) % PROGRESS_TICKS == 0:
                    self._report_progress(samples[-1])
                if why := self._why_to_stop():
                    self._unjudged.append(f"stopped after {self._load.elapsed():.1f} s: {why}")
                    self._ended.set()
        self._unjudged += _errors(played)
        samples.append(sample(self._adopted, self._load.elapsed()))
        return samples

    def _strike(self, fault: FaultTable) -> None:
        if self._ended.wait(max(0.0, fault.at - self._load.elapsed())):
            return
        begin = self._load.elapsed()
        self._report(f"{begin:6.1f} s  {fault}: begins")
        with self._in_force(fault):
            self._ended.wait(fault.duration or 0.0)
        end = self._load.elapsed()
        self._bands.append(Band(fault=str(fault), begin=begin, end=end))
        self._report(f"{end:6.1f} s  {fault}: ends")

    @contextmanager
    def _in_force(self, fault: FaultTable) -> Iterator[None]:
        if not fault.of_dependency:
            with self._stage.broken(fault) if fault.target else ExitStack():
                yield
            return
        faults, seconds = self._adopted.faults, fault.duration or 0.0
        name = _name(fault)
        faults.set(fault.fault(), actor=ACTOR, reason="game day", seconds=seconds, name=name)
        try:
            yield
        finally:
            with suppress(StoreUnavailableError):  # the fault's lease ends at the same time
                faults.clear(name, actor=ACTOR, reason="its time is over")

    def _report_progress(self, now: Sample) -> None:
        done = [one for one in list(self._load.requests) if one.seconds is not None]
        failed = sum(one.failed for one in done)
        slow = verdict.percentile((one.took for one in done), 0.99)
        count = f"{now.waiting} messages waiting"
        waiting = "the broker does not answer" if now.waiting is None else count
        self._report(
            f"{now.at:6.1f} s  {len(done)} answers, {failed} failed, p99 {slow:.2f} s, level "
            f"{self._adopted.level.name}, {waiting}"
        )

    def _why_to_stop(self) -> str:
        stop = self._plan.stop
        if stop.failed_share is not None:
            done = [one for one in list(self._load.requests) if one.seconds is not None][-RECENT:]
            failed = sum(one.failed for one in done)
            if len(done) == RECENT and failed >= stop.failed_share * RECENT:
                return f"{failed} of the last {RECENT} requests failed"
        if stop.command is not None:
            try:
                code = subprocess.run(  # nosec B602 # noqa: S602 - the operator's own command
                    stop.command, shell=True, check=False, timeout=COMMAND_SECONDS
                ).returncode
            except subprocess.TimeoutExpired:
                return f"{stop.command!r} took longer than {COMMAND_SECONDS:g} s"
            return f"{stop.command!r} exited with code {code}" if code else ""
        return ""

    def _unsteady(self) -> list[str]:
        """Return why the steady state does not hold."""
        clock, found = SystemClock.monotonic, []
        for table, call in self._steady:
            request = make(Request(name=table.call, at=clock()), call, clock)
            answer, took = request.answer, request.took
            if answer is None or answer.level > level_of(table.level):
                level = "unknown" if answer is None else f"{answer.level.name} ({answer.source})"
                found.append(f"the level of {table.call} is {level}; expected {table.level}")
            elif took > table.within:
                found.append(f"{table.call} took {took:.2f} s; expected {table.within:g} s or less")
            elif table.equals is not None and request.value != table.equals:
                found.append(f"{table.call} answers {request.value!r}; expected {table.equals!r}")
        return found

    def _recover(self, workload_ended: float) -> float | None:
        self._stage.await_restarts()
        while True:
            wrong, took = self._unsteady(), SystemClock.monotonic() - workload_ended
            if not wrong:
                self._report(f"the steady state holds again, {took:.1f} s after the workload")
                return took
            if took > self._plan.promises.recovered:
                self._report(f"the steady state does not hold: {wrong[0]}")
                return None
            threading.Event().wait(TICK_SECONDS)

    def _settle(self, position: int) -> list[Record]:
        """Wait until all jobs have ended or are in the ledger; return all records."""
        until = SystemClock.monotonic() + SETTLE_SECONDS
        while True:
            records = self._records.since(position)
            left = unfinished(records)
            if not left - self._in_ledger(left) or SystemClock.monotonic() > until:
                return records
            threading.Event().wait(TICK_SECONDS)

    def _waiting(self, ids: set[str]) -> set[str]:
        """Return those of the unfinished jobs that the ledger or the broker still has."""
        kept = self._in_ledger(ids)
        in_broker = sample(self._adopted, 0.0).waiting or 0
        if ids - kept and in_broker >= len(ids - kept):
            self._unjudged.append(
                f"{len(ids - kept)} jobs still wait in the queues of the broker; see to it that a "
                "worker takes each queue of the workload, or let the workload end sooner"
            )
            return ids
        return kept

    def _in_ledger(self, ids: set[str]) -> set[str]:
        # An app whose tasks keep no jobs may have no ledger.
        with suppress(LedgerUnavailableError, SchemaError):
            return set(self._adopted.ledger.letters.states(ids)) if ids else set()
        return set()

    def _check_strikes(self, records: Sequence[Record]) -> None:
        struck = {one["fault"] for one in records if one["record"] == "FaultInjected"}
        for fault in self._plan.faults:
            if fault.of_dependency and _name(fault) not in struck and not self._unjudged:
                self._unjudged.append(
                    f"the fault {str(fault)!r} at {fault.at:g} s hit no call; let the workload "
                    f"call {fault.target} during the fault"
                )


@contextmanager
def _placed(where: str) -> Iterator[None]:
    """Begin the message of a mistake with the place in the plan."""
    try:
        yield
    except ConfigurationError as error:
        msg = f"{where}: {error}"
        raise ConfigurationError(msg) from error


def _name(fault: FaultTable) -> str:
    return f"gameday-{fault.kind}-{fault.target}-{fault.at:g}"


def _errors(played: Sequence[Future[None]]) -> list[str]:
    errors = (one.exception() for one in played)
    return [
        f"a fault could not be injected or ended: {type(one).__name__}: {one}"
        for one in errors
        if one is not None
    ]
