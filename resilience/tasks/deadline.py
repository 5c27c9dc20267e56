"""The budget of a job, handed on from message to message."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from typing import Any, Final

from celery import Task, signals
from celery._state import get_current_task
from celery.app.task import Context
from celery.utils.time import maybe_make_aware

from resilience.budget import RESERVE_SECONDS_MAX, TimeoutBudget, checked_seconds, current_budget
from resilience.clock import SystemClock
from resilience.errors import BudgetExceededError
from resilience.events import BudgetExceeded
from resilience.outcome import Hop
from resilience.tasks.envelope import (
    BUDGET_HEADER,
    Deadline,
    deadline_of,
    received_of,
)
from resilience.tasks.marks import marks_of
from resilience.tasks.positions import hand_on_position
from resilience.tasks.publisher import app_here
from resilience.tasks.resilience import Resilience

INHERIT: Final[Any] = object()

_closed: ContextVar[bool] = ContextVar("hands_on_no_budget", default=False)


def outgoing(
    resilience: Resilience,
    headers: Mapping[str, Any] | None,
    seconds: float | None,
    job: str | None,
) -> Deadline | None:
    """Return the deadline of the job with id *job* that is published here and now.

    It is the soonest of: *seconds* from now; what *headers* say already (a retry's); that of the
    job that runs here; that of the current budget. None if there is none of them.
    """
    candidates: list[tuple[float, float]] = []
    hops: tuple[Hop, ...] = ()
    given, budget, request = deadline_of(headers), current_budget(), _running()
    if request is not None and request.id == job:
        budget = None  # a retry or a replacement: the budget of a block is for this run alone
    own = None if request is None else deadline_of(request)
    if given is None and budget is None and own is None and seconds is None:
        return None
    now = resilience.fleet_time()
    if seconds is not None:
        candidates.append((now + seconds, seconds))
    if given is not None:
        candidates.append((given.at, given.total))
        hops = given.hops
    if budget is not None and not _closed.get():
        candidates.append((now + budget.deadline - SystemClock.monotonic(), budget.total))
    if own is not None and request is not None:
        candidates.append((own.at, own.total))
        hops = (*own.hops, hop_of(request, own, now))
    if not candidates:
        return None
    at, total = min(candidates)
    return Deadline(at=at, total=total, sent=now, hops=hops)


def with_budget(
    resilience: Resilience,
    headers: Mapping[str, Any] | None,
    seconds: Any,  # noqa: ANN401 - checked
    job: str | None = None,
) -> dict[str, Any]:
    """Return message *headers* with the deadline of a job that is published here and now.

    Args:
        resilience: Of the job's app.
        headers: What its publisher says.
        seconds: Its own budget; `INHERIT`: none of its own; None: no deadline whatever.
        job: Its id, if it has one already.

    Raises:
        ConfigurationError: *seconds* are no time.
    """
    if seconds is None:
        return {**(headers or {}), BUDGET_HEADER: None}
    own = None if seconds is INHERIT else checked_seconds(seconds, "budget")
    deadline = outgoing(resilience, headers, own, job)
    if deadline is None:
        return dict(headers or {})
    return {**(headers or {}), BUDGET_HEADER: deadline.header()}


def hop_of(request: Context, deadline: Deadline, now: float) -> Hop:
    """Return where the time of the job with *request* went, up to fleet time *now*."""
    received = received_of(request, deadline.sent)
    started = marks_of(request).get("started", received)
    return Hop(
        task=str(request.get("task")),
        queued=max(0.0, received - deadline.sent),
        waited=max(0.0, started - received),
        ran=max(0.0, now - started),
    )


def budget_of(resilience: Resilience, deadline: Deadline, now: float) -> TimeoutBudget:
    """Return *deadline* as a budget of this process, at fleet time *now*."""
    until = SystemClock.monotonic() + deadline.left(now)
    budget = TimeoutBudget.until(until, deadline.total)
    budget.listeners = resilience.listeners
    return budget


@contextmanager
def no_budget() -> Iterator[None]:
    """Let nothing that is published inside inherit a deadline."""
    token = _closed.set(True)
    try:
        yield
    finally:
        _closed.reset(token)


def announce_exceeded(
    resilience: Resilience, task: str, job: str | None, deadline: Deadline, hop: Hop, now: float
) -> None:
    """Say that a job's budget is used up, and by what."""
    event = BudgetExceeded(
        task=task,
        id=job,
        total=deadline.total,
        late=-deadline.left(now),
        hops=(*deadline.hops, hop),
    )
    resilience.announce(event)


def announce_if_exceeded(
    resilience: Resilience, task: str, request: Context, deadline: Deadline
) -> None:
    """Announce that the job with *request* has used up its budget, if it failed because of that."""
    now = resilience.fleet_time()
    if deadline.left(now) > RESERVE_SECONDS_MAX:
        return
    # What is published when a job has failed, errbacks, would be dropped as well.
    marks_of(request)["over"] = True
    hop = hop_of(request, deadline, now)
    announce_exceeded(resilience, task, request.id, deadline, hop, now)


def cut_short(name: str, budget: TimeoutBudget) -> BudgetExceededError:
    """Return the error of a job that did not end within its *budget*."""
    left, total = budget.remaining(), budget.total
    return BudgetExceededError(name, total - left, left, total, conclusive=True)


def refuse_late_retry(
    resilience: Resilience,
    request: Context,
    deadline: Deadline,
    delay: float | None,
    eta: datetime | None,
    error: BaseException | None,
) -> None:
    """Let only pass a retry after *delay* seconds, or at *eta*, that begins in time.

    Raises:
        BudgetExceededError: It would not, and no *error* was given to raise instead.
    """
    if eta is not None:
        aware = maybe_make_aware(eta, resilience.app.timezone)
        delay = (aware - resilience.app.now()).total_seconds()
    now = resilience.fleet_time()
    if float(delay or 0.0) < deadline.left(now):
        return
    name = str(request.get("task"))
    announce_exceeded(resilience, name, request.id, deadline, hop_of(request, deadline, now), now)
    raise error or deadline.late(f"the retry of {name}", now)


def _running() -> Context | None:
    """Return the request of the job that runs here and hands its deadline on."""
    task: Task[Any, Any] | None = get_current_task()
    if _closed.get() or task is None:
        return None
    request: Context = task.request
    if request.called_directly or "over" in marks_of(request):
        return None
    return request


@signals.before_task_publish.connect(weak=False)
def _hand_on(
    headers: dict[str, Any] | None = None, properties: dict[str, Any] | None = None, **_: object
) -> None:
    """Do for a task of any class what `ResilientTask.apply_async` does."""
    if headers is None:
        return
    hand_on_position(headers)
    if BUDGET_HEADER in headers:
        if headers[BUDGET_HEADER] is None:  # opted out
            del headers[BUDGET_HEADER]
        return
    task: Task[Any, Any] | None = get_current_task()
    # An option that Celery does not know ends up among the properties.
    own = properties.pop("budget", INHERIT) if properties else INHERIT
    if own is None or (own is INHERIT and task is None and current_budget() is None):
        return
    resilience = getattr(app_here(), "resilience", None)
    if isinstance(resilience, Resilience):
        said = with_budget(resilience, None, own, headers.get("id"))
        headers.update(said)
