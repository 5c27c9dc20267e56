"""Makes the calls of a plan at their times, whatever the answers do, and measures them."""

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
"""A request without an answer after so long has failed."""
AT_ONCE: Final = 64
"""Requests that wait for their answer at once; further ones wait, which counts as their latency."""
STEP_SECONDS: Final = 0.01


@dataclass(slots=True, kw_only=True)
class Request:
    """A request that was made.

    Attributes:
        name: Of the call, and which one of it.
        at: Seconds from the beginning at which it was due.
        job: Id of the job, if the call is a task.
        seconds: How long the answer took from then on; None: there is none yet.
        answer: None: there is none.
        value: What was answered; of an `Outcome` its value.
    """

    name: str
    at: float
    job: str | None = None
    seconds: float | None = None
    answer: Answer | None = None
    value: Any = field(default=None, repr=False)

    @property
    def failed(self) -> bool:
        """Whether it has no answer, or one that is FAILED."""
        return self.answer is None or self.answer.level is Level.FAILED

    def __str__(self) -> str:
        return f"{self.name} at {self.at:.1f} s" + f" (job {self.job})" * bool(self.job)


def call_of(adopted: Resilience, table: CallTable, calls: str | None) -> Call:
    """Return what a table of the plan calls.

    Args:
        adopted: The app.
        table: From the plan.
        calls: Where the mapping of names to calls is.

    Raises:
        ConfigurationError: A name stands for nothing that can be called.
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
        msg = f"{path!r} names nothing: {error}; write module:name"
        raise ConfigurationError(msg) from error


def make(request: Request, call: Call, clock: Callable[[], float]) -> Request:
    """Make *call*, and write down in *request* what comes of it."""
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
    """Yield when the calls of *workload* are due; `load` faults bring more of them meanwhile."""
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
        requests: Those that were due so far, in the order of their times.
    """

    def __init__(self, plan: Sequence[tuple[float, str, Call]], ended: threading.Event) -> None:
        """Make each call of *plan* at its time, by name, until *ended* is set."""
        self.requests: list[Request] = []
        self._plan = sorted(plan, key=lambda one: one[0])
        self._ended = ended
        self._began = SystemClock.monotonic()
        self._pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="gameday-load")
        self._thread = threading.Thread(target=self._run, name="gameday-load", daemon=True)

    def elapsed(self) -> float:
        """Return the seconds since the beginning."""
        return SystemClock.monotonic() - self._began

    def start(self) -> None:
        """Begin."""
        self._began = SystemClock.monotonic()
        self._thread.start()

    def finish(self) -> None:
        """Wait until each request that was made has an answer, or will have none."""
        self._thread.join()
        self._pool.shutdown(wait=True)

    def _run(self) -> None:
        for number, (at, name, call) in enumerate(self._plan, 1):
            if self._ended.wait(max(0.0, at - self.elapsed())):
                return
            request = Request(name=f"{name} #{number}", at=at)
            self.requests.append(request)
            self._pool.submit(make, request, call, self.elapsed)
