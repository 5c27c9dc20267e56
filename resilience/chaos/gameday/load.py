"""Makes each call of a plan at its time, however long other answers take, and measures it."""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Final
from uuid import uuid4

from resilience.chaos.gameday.plan import LOAD_FACTOR, CallTable, FaultTable, Workload
from resilience.chaos.proving.call import Call, named
from resilience.chaos.proving.verdict import Answer, read_answer
from resilience.clock import SystemClock
from resilience.declared import check_known
from resilience.errors import ConfigurationError
from resilience.levels import Level
from resilience.outcome import Outcome
from resilience.partial import PartialResponse
from resilience.tasks import FanOut, ResilientTask
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
        value: The returned value; of an `Outcome` its value, of a `PartialResponse` its data.
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

    @property
    def took(self) -> float:
        """Seconds until the answer; without one, the longest wait for an answer."""
        return PATIENCE_SECONDS if self.seconds is None else self.seconds

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
    found_calls = named(calls) if calls else {}
    if not isinstance(found_calls, Mapping):
        msg = (
            f"calls = {calls!r} is a {type(found_calls).__name__}; name a mapping of names to calls"
        )
        raise ConfigurationError(msg)
    given: dict[str, Any] = {"args": table.args, "kwargs": table.kwargs}
    found = found_calls.get(table.call)
    if found is None and ":" in table.call:
        found = named(table.call)
    if found is None:
        tasks = [name for name in adopted.app.tasks if not name.startswith("celery.")]
        check_known(table.call, sorted({*tasks, *found_calls}), "No call or task is called")
        found = adopted.app.tasks[table.call]
    if isinstance(found, FanOut) and table.budget is None:
        msg = f"{table.call} is a fan-out, which needs a deadline; write budget = 2.0"
        raise ConfigurationError(msg)
    if not isinstance(found, Call):
        return Call(found, **given, budget=table.budget)
    given = {name: value for name, value in given.items() if value}
    return replace(found, **given, budget=table.budget or found.budget)


def make(request: Request, call: Call, clock: Callable[[], float]) -> Request:
    """Make *call*, and store its answer and its time in *request*."""
    try:
        value = _result(request, call)
    except Exception as error:  # noqa: BLE001 - whatever the call raises is its answer
        request.answer = Answer(level=Level.FAILED, source=type(error).__name__)
    else:
        request.answer = read_answer(value)
        is_partial = isinstance(value, PartialResponse)
        request.value = value.value if isinstance(value, Outcome) else value
        request.value = value.data if is_partial else request.value
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
    options["task_id"] = request.job
    result: Any = task.apply_async(tuple(call.args), dict(call.kwargs), **options)
    try:
        return None if task.ignore_result else result.get(timeout=PATIENCE_SECONDS)
    finally:
        # A result unsubscribes when it is collected, and by then the server may be gone.
        with suppress(Exception):
            result.backend.remove_pending_result(result)
        result.backend = None


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
                factor *= one.factor or LOAD_FACTOR
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
        self._room = threading.Semaphore(AT_ONCE)
        self._callers: list[threading.Thread] = []
        self._thread = threading.Thread(target=self._run, name="gameday-load", daemon=True)

    def elapsed(self) -> float:
        """Return the seconds since `start`, or before it since construction."""
        return SystemClock.monotonic() - self._began

    def start(self) -> None:
        """Make each call at its time, in a thread of its own."""
        self._began = SystemClock.monotonic()
        self._thread.start()

    def finish(self) -> None:
        """Wait until each request has an answer, at most `PATIENCE_SECONDS`."""
        until = SystemClock.monotonic() + PATIENCE_SECONDS
        for thread in (self._thread, *self._callers):
            thread.join(max(0.0, until - SystemClock.monotonic()))

    def _run(self) -> None:
        for number, (at, name, call) in enumerate(self._plan, 1):
            if self._ended.wait(max(0.0, at - self.elapsed())):
                return
            request = Request(name=f"{name} #{number}", at=at)
            self.requests.append(request)
            while not self._room.acquire(timeout=STEP_SECONDS):
                if self._ended.is_set():
                    return
            # A daemon: a function that never returns must not keep the game day from its end.
            caller = threading.Thread(target=self._make, args=(request, call), daemon=True)
            self._callers.append(caller)
            caller.start()

    def _make(self, request: Request, call: Call) -> None:
        with suppress(Exception):  # the answer has it
            make(request, call, self.elapsed)
        self._room.release()
