"""What became of jobs and messages."""

import logging
from dataclasses import dataclass

from resilience.events.base import Event
from resilience.outcome import Hop


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetExceeded(Event, severity=logging.WARNING):
    """A job was dropped before it ran, cut, or not run again, as its budget was used up.

    Attributes:
        task: Name of its task.
        id: Its id.
        total: Seconds of the whole budget.
        late: Seconds since it ended; less than 0 for a job that was cut or refused before that.
        hops: Where the time went, job by job; the last is this one.
    """

    task: str
    id: str | None
    total: float
    late: float
    hops: tuple[Hop, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishFailed(Event, severity=logging.ERROR):
    """A message was not published: the broker did not take it in time, or never could."""

    what: str
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class JobUnreadable(Event, severity=logging.ERROR, crowds=True):
    """A message cannot be read, or failed in the worker's event loop, so it was set aside.

    Attributes:
        queue: The queue that it came from; it is in the queue of this name and `.unreadable`.
        id: Its id, empty if there is none.
        reason: The error.
        place: File, line and function where the error was raised.
    """

    queue: str
    id: str
    reason: str
    place: str


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSetAside(Event, severity=logging.ERROR):
    """A job in the ledger could not be read, so it is a dead letter now; the others went on."""

    id: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class JobKept(Event, severity=logging.WARNING, crowds=True):
    """A job went into the outbox, as the broker did not take it. It is safe there.

    Attributes:
        task: Name of its task.
        id: Its id.
        queue: Where it will be published.
        error: What the broker, or the way to it, said.
    """

    task: str
    id: str
    queue: str
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class JobParked(Event, severity=logging.WARNING, crowds=True):
    """A job failed or was refused, and is kept until it is due again.

    Attributes:
        task: Name of its task.
        id: Its id.
        dependency: Whose retry queue it will go to.
        seconds: When it is due.
        attempts: Calls that have failed; a refusal is none.
        error: What the last one ended in.
    """

    task: str
    id: str
    dependency: str
    seconds: float
    attempts: int
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class JobBuried(Event, severity=logging.ERROR):
    """A job was given up and is a dead letter.

    Attributes:
        task: Name of its task.
        id: Its id.
        dependency: Whose job it was.
        reason: Which option of the retry policy says so; `bug`; `poison`.
        attempts: Calls that have failed.
        error: What the last one ended in.
    """

    task: str
    id: str
    dependency: str
    reason: str
    attempts: int
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class JobUnkept(Event, severity=logging.ERROR):
    """The ledger could not be told how a job ended, so the job runs once more.

    Or never, if the ledger can never keep it: the error says what it cannot hold.
    """

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


@dataclass(frozen=True, slots=True, kw_only=True)
class SecondLedgerFound(Event, severity=logging.ERROR):
    """This process keeps jobs in another ledger than the other processes of the app.

    Jobs that are kept here are safe, and nobody runs them.

    Attributes:
        error: Both ledgers, and what to do.
    """

    error: str
