"""Makes each call of a plan at its time, however long other answers take, and measures it."""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, Final
from uuid import uuid4

from celery.utils.imports import symbol_by_name

from resilience.chaos.gameday.plan import CallTable, FaultTable, Workload
from resilience.chaos.proving.call import Call
from resilience.chaos.proving.verdict import Answer, read_answer
from resilience.clock import SystemClock
from resilience.declared import check_known
from resilience.errors import ConfigurationError
from resilience.levels import Level
from resilience.outcome import Outcome
from resilience.tasks import ResilientTask
from resilience.tasks.resilience import Resilience

PATIENCE_SECONDS: Final = 30.0
"""Longest wait for an answer; a request without one has then failed."""
AT_ONCE: Final = 64
"""Most requests that run at once; the wait of a further request counts towards its latency."""
STEP_SECONDS: Final = 0.01


@dataclass(slots=True, kw_only=True)
class Request:
    """One call of the workload or of the steady state, and its answer.

    Attributes:
        name: Name of the call, in a workload with its number.
        at: When the call was due, in seconds from the beginning.
        job: Id of the job, if the call is a task.
        seconds: How long the answer took from `at` on; None: there is no answer yet.
        answer: Level and source of the answer; None: there is no answer yet.
        value: The returned value; if an `Outcome` was returned, its value.
    """

    name: str
    at: float
    job: str | None = None
    seconds: float | None = None
    answer: Answer | None = None
    value: Any = field(default=None, repr=False)

    @property
    def failed(self) -> bool:
        """Whether the request has no answer, or an answer of level FAILED."""
        return self.answer is None or self.answer.level is Level.FAILED

    def __str__(self) -> str:
        return f"{self.name} at {self.at:.1f} s" + f" (job {self.job})" * bool(self.job)


def call_of(adopted: Resilience, table: CallTable, calls: str | None) -> Call:
    """Return the call that a table of the plan names.

    Args:
        adopted: The app's `Resilience`.
        table: A steady or workload table of the plan.
        calls: `module:NAME` of the mapping of names to calls; None: there is no mapping.

    Raises:
        ConfigurationError: The name is unknown, or cannot be called.
    """
    named: Mapping[str, Any] = _symbol(calls) if calls else {}
    given: dict[str, Any] = {"args": table.args, "kwargs": table.kwargs}
    found = named.get(table.call)
    if found is None and ":" in table.call:
        found = _symbol(table.call)
    if found is None:
        check_known(table.call, {**adopted.app.tasks, **named}, "No call or task is called")
        found = adopted.app.tasks[table.call]
    if not isinstance(found, Call):
        return Call(found, **given, budget=table.budget)
    given = {name: value for name, value in given.items() if value}
    return replace(found, **given, budget=table.budget or found.budget)


def _symbol(path: str) -> Any:  # noqa: ANN401 - whatever the user named
    try:
        return symbol_by_name(path)
    except (ImportError, AttributeError, ValueError) as error:
        msg = f"cannot import {path!r}: {error}; write module:name of something that exists"
        raise ConfigurationError(msg) from error


def make(request: Request, call: Call, clock: Callable[[], float]) -> Request:
    """Make *call*, and store its answer and its time in *request*."""
    try:
        value = _result(request, call)
    except Exception as error:  # noqa: BLE001 - whatever the call raises is its answer
        request.answer = Answer(level=Level.FAILED, source=type(error).__name__)
    else:
        request.answer = read_answer(value)
        request.value = value.value if isinstance(value, Outcome) else value
    request.seconds = clock() - request.at
    return request


def _result(request: Request, call: Call) -> Any:  # noqa: ANN401 - whatever is called
    task = call.task
    if task is None:
        return call.make(seconds=PATIENCE_SECONDS)
    request.job = uuid4().hex
    options: dict[str, Any] = {}
    if call.budget is not None and isinstance(task, ResilientTask):
        options["budget"] = call.budget
    result = task.apply_async(tuple(call.args), dict(call.kwargs), task_id=request.job, **options)
    return None if task.ignore_result else result.get(timeout=PATIENCE_SECONDS)


def times(workload: Workload, faults: Sequence[FaultTable], seconds: float) -> Iterator[float]:
    """Yield the times at which the calls of *workload* are due; `load` faults add calls."""
    rate = workload.rate or (workload.count or 0) / seconds
    peaks = [one for one in faults if one.kind == "load"] if workload.rate else []
    due, owed = 0, 0.5
    for step in range(round(seconds / STEP_SECONDS)):
        now = step * STEP_SECONDS
        factor = 1.0
        for one in peaks:
            if one.at <= now < one.at + (one.duration or 0.0):
                factor *= one.factor
        owed += rate * factor * STEP_SECONDS
        while due + 1 <= owed:
            due += 1
            yield now


class Load:
    """All requests of a game day.

    Attributes:
        requests: The requests that were due so far, in the order of their times.
    """

    def __init__(self, plan: Sequence[tuple[float, str, Call]], ended: threading.Event) -> None:
        """Prepare the calls of *plan* (time, name, call); `start` makes them until *ended*."""
        self.requests: list[Request] = []
        self._plan = sorted(plan, key=lambda one: one[0])
        self._ended = ended
        self._began = SystemClock.monotonic()
        self._pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="gameday-load")
        self._thread = threading.Thread(target=self._run, name="gameday-load", daemon=True)

    def elapsed(self) -> float:
        """Return the seconds since `start`, or before it since construction."""
        return SystemClock.monotonic() - self._began

    def start(self) -> None:
        """Make each call at its time, in a thread of its own."""
        self._began = SystemClock.monotonic()
        self._thread.start()

    def finish(self) -> None:
        """Wait until each request has an answer, or has failed."""
        self._thread.join()
        self._pool.shutdown(wait=True)

    def _run(self) -> None:
        for number, (at, name, call) in enumerate(self._plan, 1):
            if self._ended.wait(max(0.0, at - self.elapsed())):
                return
            request = Request(name=f"{name} #{number}", at=at)
            self.requests.append(request)
            self._pool.submit(make, request, call, self.elapsed)
