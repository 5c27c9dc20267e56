"""Whatever becomes of the parts: one final response, in time, marked right, the same for all."""

import asyncio
import threading
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from time import perf_counter
from uuid import uuid4

import pytest
from celery import Celery
from celery.exceptions import TaskRevokedError

from resilience.dependency import Dependency
from resilience.events import Event, FanOutFinished
from resilience.partial import PartAnswer, PartialResponse
from resilience.settings import Settings
from resilience.store import Memory, Slot
from resilience.tasks import PendingResponse, Resilience
from resilience.tasks.reporting import report_failure, report_value
from resilience.tasks.response import deliver_callback
from resilience.tasks.serialization import dumps
from resilience.testing.valkey import ValkeyProcess
from resilience.testing.waiting import wait_until
from tests.property.fates import Scenario, covering_scenarios, expect, scenarios

AT_ONCE = 216
"""Fan-outs that run side by side: each holds a thread for `get`, every third one for `stream`."""
STREAM_EVERY = 3
BUDGET = 3.0
BUDGET_MAX = 48.0
CONTROL_EVERY = 9
"""Beside every so many fan-outs a thread waits for the budget alone, as a control."""
TOLERANCE_SECONDS = 1.0
"""How much later than the latest control a caller may have the answer."""
SECONDS = 120.0
REMEMBERED_SECONDS = 600.0
CALLBACK_QUEUE = "callbacks"


class TooSlowError(Exception):
    """The machine did not get all reports out before the deadline, so nothing can be said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One running fan-out and what its callers got."""

    scenario: Scenario
    pending: PendingResponse
    streams: bool
    answers: list[PartialResponse] = field(default_factory=list)
    streamed: list[PartAnswer] = field(default_factory=list)
    took: list[float] = field(default_factory=list)

    def slot(self, name: str) -> Slot:
        """Return where the part *name* reports."""
        return Slot(fan=self.pending.id, part=name)


class Stage:
    """An adopted app without workers: the test reports as its workers would."""

    def __init__(self, url: str) -> None:
        self.events: list[Event] = []
        self.app = Celery("fates", broker=url, backend=url, set_as_current=False)
        self.resilience = Resilience(
            self.app,
            dependencies=[Dependency("users")],
            settings=Settings(store_timeout_seconds=SECONDS, namespace=uuid4().hex),
            listeners=[self.events.append],
        )
        self.callback = self.app.signature("callback", queue=CALLBACK_QUEUE)
        self.old = {name: self.resilience.answers.key(f"old {name}") for name in "abcd"}
        for name, key in self.old.items():
            self.resilience.answers.refresh(key, f"old {name}", max_age=REMEMBERED_SECONDS)

    def open(self, scenario: Scenario, budget: float, *, streams: bool) -> Run:
        """Open the fan-out of *scenario* as `FanOut.apply_async` does, without publishing."""
        spec = [(name, name in scenario.required) for name in scenario.fates]
        pending = PendingResponse(self.resilience, uuid4().hex, spec, budget=budget)
        keys = {name: self.old[name] for name in scenario.stale}
        keys |= {name: f"{self.old[name]}:forgotten" for name in scenario.forgotten}
        for name, fate in scenario.fates.items():
            if name in keys and fate in {"ok", "duplicate", "late"}:
                # Runs share the old answers: a part that is good must not replace one.
                keys[name] = f"{keys[name]}:{pending.id}"
                if name in scenario.stale:
                    self.resilience.answers.refresh(
                        keys[name], f"old {name}", max_age=REMEMBERED_SECONDS
                    )
        self.resilience.fan_in.open(
            pending.id,
            spec,
            budget=budget,
            memories={name: Memory(key, REMEMBERED_SECONDS) for name, key in keys.items()},
            callback=dumps(self.callback) if scenario.callback else "",
        )
        return Run(scenario=scenario, pending=pending, streams=streams)

    def report(self, run: Run) -> None:
        """Let the parts report that do so before the deadline, in their order."""
        for name in run.scenario.order:
            self._report(run, name, run.scenario.fates[name])

    def report_late(self, run: Run) -> None:
        """Let the late parts report."""
        for name, fate in run.scenario.fates.items():
            if fate == "late":
                report_value(self.resilience, run.slot(name), name)

    def sweep(self) -> bool:
        """Do what a worker does for callbacks; return whether none is due any longer."""
        fans, next_due = self.resilience.fan_in.take_due()
        for fan in fans:
            self.resilience.fan_in.finish(fan, "deadline")
            deliver_callback(self.resilience, fan)
        return next_due is None

    def _report(self, run: Run, name: str, fate: str) -> None:
        slot = run.slot(name)
        if fate in {"ok", "duplicate"}:
            report_value(self.resilience, slot, name)
        if fate == "duplicate":
            report_value(self.resilience, slot, f"{name} again")
        if fate == "fails":
            report_failure(self.resilience, slot, ConnectionError("refused"))
        if fate == "dropped":
            report_failure(self.resilience, slot, TaskRevokedError("part"))

    def close(self) -> None:
        """Close all connections."""
        self.resilience.store.client.close()
        self.app.close()


def play(stage: Stage, batch: Sequence[Scenario], budget: float) -> tuple[list[Run], float]:
    """Play all of *batch* at once, each with four callers.

    Returns what they got, and the seconds after which the latest control had its answer.

    Raises:
        TooSlowError: The reports were not all out well before the deadline.
    """
    began = perf_counter()
    with ThreadPoolExecutor(2 * len(batch) + 8) as pool:
        runs = [
            stage.open(scenario, budget, streams=number % STREAM_EVERY == 0)
            for number, scenario in enumerate(batch)
        ]
        calls: list[Future[None]] = [pool.submit(get, run) for run in runs]
        calls += [pool.submit(look, run) for run in runs if run.streams]
        controls = [pool.submit(wait, stage, run, budget) for run in runs[::CONTROL_EVERY]]
        calls.append(pool.submit(asyncio.run, get_async(runs)))
        list(pool.map(stage.report, runs))
        reported_seconds = perf_counter() - began
        for call in calls:
            call.result(SECONDS)
        latest = max(control.result(SECONDS) for control in controls)
        if reported_seconds > 0.8 * budget:
            raise TooSlowError
        list(pool.map(stage.report_late, runs))
        list(pool.map(get, runs))
    return runs, latest


def get(run: Run) -> None:
    """Ask for the response as a thread does."""
    began = perf_counter()
    run.answers.append(run.pending.get())
    run.took.append(perf_counter() - began)


def wait(stage: Stage, run: Run, budget: float) -> float:
    """Wait for the budget by the clock, and ask the store once; return how long that took."""
    began = perf_counter()
    threading.Event().wait(budget)
    stage.resilience.fan_in.collect(run.pending.id)
    return perf_counter() - began


async def get_async(runs: Sequence[Run]) -> None:
    """Ask for all responses on one event loop."""

    async def one(run: Run) -> None:
        run.answers.append(await run.pending.aget())

    await asyncio.gather(*map(one, runs))


def look(run: Run) -> None:
    """Ask for the parts one by one."""
    run.streamed.extend(run.pending.stream())


def check(stage: Stage, run: Run, latest: float) -> None:
    """Compare what the callers of *run* got, and when, with what they must get."""
    expected = expect(run.scenario)
    first, *others = run.answers
    assert len(others) == 2
    assert all(other == first for other in others)
    assert first.data == expected.data
    assert first.missing == expected.missing
    assert first.degraded == expected.degraded
    assert first.reasons == expected.reasons
    assert first.level == expected.level
    assert first.partial == bool(expected.reasons)
    assert set(first.ages) == set(expected.degraded)
    if run.streams:
        streamed = {answer.name: answer.outcome and answer.outcome.value for answer in run.streamed}
        assert len(run.streamed) == len(run.scenario.fates)
        assert streamed == {name: expected.data.get(name) for name in run.scenario.fates}
    record = stage.resilience.fan_in.collect(run.pending.id)
    assert record is not None
    assert (record.final, record.late) == (expected.ended, expected.late)
    assert max(run.took) < latest + TOLERANCE_SECONDS


def check_announced(stage: Stage, runs: Sequence[Run]) -> None:
    """Check that the end of every run was announced once, and as what it was."""
    finished = [event for event in stage.events if isinstance(event, FanOutFinished)]
    assert Counter(event.id for event in finished) == {run.pending.id: 1 for run in runs}
    by_id = {event.id: event for event in finished}
    for run in runs:
        event, expected = by_id[run.pending.id], expect(run.scenario)
        assert (event.ended, event.level) == (expected.ended, expected.level)
        assert (list(event.missing), list(event.degraded)) == (expected.missing, expected.degraded)


def check_callbacks(stage: Stage, valkey: ValkeyProcess, runs: Sequence[Run]) -> None:
    """Check that every callback that was asked for was published, once."""
    wait_until(stage.sweep, SECONDS, "all callbacks are published")
    messages = valkey.client().lrange(CALLBACK_QUEUE, 0, -1)
    asked = [run.pending.id for run in runs if run.scenario.callback]
    assert len(messages) == len(asked)
    assert all(any(fan.encode() in message for message in messages) for fan in asked)


def play_in_time(
    stage: Stage, valkey: ValkeyProcess, batch: Sequence[Scenario]
) -> tuple[list[Run], float]:
    """Play all of *batch*, again with a larger budget if need be."""
    budget = BUDGET
    while budget <= BUDGET_MAX:
        stage.events.clear()
        valkey.client().delete(CALLBACK_QUEUE)
        try:
            return play(stage, batch, budget)
        except TooSlowError:
            wait_until(stage.sweep, SECONDS, "callbacks of what was too slow are out of the way")
            budget *= 2
    pytest.fail("this machine is too busy to do anything in time")


@pytest.mark.parametrize(
    "every",
    [
        pytest.param(covering_scenarios(), id="every-pair"),
        pytest.param(list(scenarios()), id="all-1296", marks=pytest.mark.long),
    ],
)
def test_every_combination_of_fates_gives_one_response(
    valkey: ValkeyProcess, every: list[Scenario]
) -> None:
    """One final response, in time, equal for all callers, rightly marked."""
    valkey.flush()
    stage = Stage(valkey.url)
    try:
        for start in range(0, len(every), AT_ONCE):
            runs, latest = play_in_time(stage, valkey, every[start : start + AT_ONCE])
            for run in runs:
                check(stage, run, latest)
            check_announced(stage, runs)
            check_callbacks(stage, valkey, runs)
    finally:
        stage.close()
