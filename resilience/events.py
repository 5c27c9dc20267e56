"""What happened, in past tense; listeners decide who hears of it."""

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from resilience.levels import Level
from resilience.outcome import Hop

logger = logging.getLogger("resilience")


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something an operator may want to know.

    Attributes:
        severity: The logging level at which it is worth a line.
    """

    severity: ClassVar[int] = logging.INFO

    def details(self) -> dict[str, Any]:
        """Return the event's own fields by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerDegraded(Event):
    """A fallback step answered instead of the dependency.

    Attributes:
        call: The task or function that was called.
        dependency: Who should have answered.
        level: How good the answer is.
        reason: Class name of the error that the first choice ended in.
        error: That error's text.
        source: Which step answered.
        age: Seconds since the answer was fresh, if it has an age.
    """

    severity: ClassVar[int] = logging.WARNING
    call: str
    dependency: str
    level: Level
    reason: str
    error: str
    source: str
    age: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FallbacksExhausted(Event):
    """A call ended at level 4: no step of its chain had an answer."""

    severity: ClassVar[int] = logging.ERROR
    call: str
    dependency: str
    reasons: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetExceeded(Event):
    """A job was dropped before it ran, cut, or not run again, as its budget was used up.

    Attributes:
        task: Name of its task.
        id: Its id.
        total: Seconds of the whole budget.
        late: Seconds since it ended; less than 0 for a job that was cut or refused before that.
        hops: Where the time went, job by job; the last is this one.
    """

    severity: ClassVar[int] = logging.WARNING
    task: str
    id: str | None
    total: float
    late: float
    hops: tuple[Hop, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FanOutFinished(Event):
    """A fan-out was finalised. Announced once, by the process that finalised it.

    Attributes:
        id: The fan-out's own id.
        ended: Why: `complete`, `required` (a required part failed), `deadline` or `unpublished`.
        level: Level of the response.
        missing: Parts without an answer.
        degraded: Parts with a degraded answer.
    """

    id: str
    ended: str
    level: Level
    missing: tuple[str, ...]
    degraded: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PartLate(Event):
    """A part's answer came after its fan-out was finalised, so it was dropped."""

    severity: ClassVar[int] = logging.WARNING
    id: str
    part: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PartUnreported(Event):
    """A part ended but could not tell its fan-out, which will call it missing."""

    severity: ClassVar[int] = logging.ERROR
    id: str
    part: str
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishFailed(Event):
    """A message was not published: the broker did not take it in time, or never could."""

    severity: ClassVar[int] = logging.ERROR
    what: str
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CircuitOpened(Event):
    """A circuit went from closed or half-open to open. Announced once in the fleet.

    Attributes:
        dependency: Whose circuit.
        reason: What was seen.
        calls: Calls in the window, or probes.
        failed: How many of them failed.
        slow: How many of them were slow.
        seconds: How long it refuses before it probes.
        scope: `fleet`, or `local` if this process has lost the store.
        observed: Whether it only would have opened, as somebody ordered to observe.
    """

    severity: ClassVar[int] = logging.ERROR
    dependency: str
    reason: str
    calls: int
    failed: int
    slow: int
    seconds: float
    scope: str
    observed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class CircuitHalfOpened(Event):
    """An open circuit let its first probe through. Announced once in the fleet."""

    dependency: str
    permits: int
    scope: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CircuitClosed(Event):
    """A half-open circuit closed, because its probes passed. Announced once in the fleet."""

    dependency: str
    probes: int
    failed: int
    scope: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CircuitForced(Event):
    """Somebody ordered what a circuit does.

    Attributes:
        dependency: Whose circuit.
        order: `forced_open`, `forced_closed`, `observed` or `reset`.
        seconds: How long the order holds; 0 for a reset.
        actor: Who ordered it.
        reason: Why.
    """

    severity: ClassVar[int] = logging.WARNING
    dependency: str
    order: str
    seconds: float
    actor: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueHeld(Event):
    """Somebody ordered to hold a queue, or a worker stopped to take jobs from its queues.

    Attributes:
        queue: Name of the dependency, for all its queues, or of a single queue.
        worker: Which one stopped; None: it is the order, for the whole fleet.
        reason: Why.
        actor: Who ordered it; `breaker`: the circuit refuses all calls.
        until: Fleet time at which it ends by itself, unless it is prolonged; None: open end.
    """

    severity: ClassVar[int] = logging.WARNING
    queue: str
    worker: str | None
    reason: str
    actor: str
    until: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueReleased(Event):
    """Somebody ended the order to hold a queue, or a worker takes jobs again.

    Attributes:
        queue: Name of the dependency, for all its queues, or of a single queue.
        worker: Which one takes jobs; None: it is the order, for the whole fleet.
        reason: Why.
        actor: Who ordered it; for a worker, who had ordered to hold it.
        until: Fleet time at which the hold would have ended; None: open end.
    """

    severity: ClassVar[int] = logging.WARNING
    queue: str
    worker: str | None
    reason: str
    actor: str
    until: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreLost(Event):
    """The shared store stopped answering this process."""

    severity: ClassVar[int] = logging.ERROR
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreFound(Event):
    """The shared store answers this process again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSetAside(Event):
    """A job in the ledger could not be read, so it is a dead letter now; the others went on."""

    severity: ClassVar[int] = logging.ERROR
    id: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class JobKept(Event):
    """A job went into the outbox, as the broker did not take it. It is safe there.

    Attributes:
        task: Name of its task.
        id: Its id.
        queue: Where it will be published.
        error: What the broker, or the way to it, said.
    """

    severity: ClassVar[int] = logging.WARNING
    task: str
    id: str
    queue: str
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class JobParked(Event):
    """A job failed or was refused, and is kept until it is due again.

    Attributes:
        task: Name of its task.
        id: Its id.
        dependency: Whose retry queue it will go to.
        seconds: When it is due.
        attempts: Calls that have failed; a refusal is none.
        error: What the last one ended in.
    """

    severity: ClassVar[int] = logging.WARNING
    task: str
    id: str
    dependency: str
    seconds: float
    attempts: int
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class JobBuried(Event):
    """A job was given up and is a dead letter.

    Attributes:
        task: Name of its task.
        id: Its id.
        dependency: Whose job it was.
        reason: Which option of the retry policy says so; `bug`; `poison`.
        attempts: Calls that have failed.
        error: What the last one ended in.
    """

    severity: ClassVar[int] = logging.ERROR
    task: str
    id: str
    dependency: str
    reason: str
    attempts: int
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class JobUnkept(Event):
    """The ledger could not be told how a job ended, so the job runs once more."""

    severity: ClassVar[int] = logging.ERROR
    task: str
    id: str
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class JobsPublished(Event):
    """A relay published jobs that were due.

    Attributes:
        jobs: How many.
        seconds: How long the first of them had been due.
    """

    jobs: int
    seconds: float


Listener = Callable[[Event], None]


def log_event(event: Event) -> None:
    """Listen by writing one structured log line to the logger `resilience`.

    The message reads `AnswerDegraded dependency=users level=1 …`; the fields are also in the
    record's `event` attribute for formatters that write JSON.
    """
    if not logger.isEnabledFor(event.severity):
        return
    details = event.details()
    text = " ".join(f"{name}={_plain(value)}" for name, value in details.items())
    name = type(event).__name__
    logger.log(event.severity, "%s %s", name, text, extra={"event": {"name": name, **details}})


def _plain(value: object) -> object:
    if isinstance(value, str) and not value.isprintable():
        return repr(value)  # a client's error of several lines stays one line of the log
    return value.name if isinstance(value, Level) else value


def announce(event: Event, listeners: Iterable[Listener]) -> None:
    """Tell *listeners* of *event*, in order.

    A listener that raises is logged and left out: monitoring never fails the job it watches.
    """
    for listener in listeners:
        try:
            listener(event)
        except Exception:
            logger.exception("listener %r failed on %s", listener, type(event).__name__)
