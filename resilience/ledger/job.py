"""What the ledger takes and gives."""

from dataclasses import dataclass
from enum import StrEnum

KEY_LENGTH = 255
"""Longest name that the ledger keeps, in characters: MariaDB has an index for no more."""


class State(StrEnum):
    """Where a job is."""

    OUTBOX = "outbox"
    """It was never published, as the broker did not take it."""
    SCHEDULED = "scheduled"
    """It failed, was refused or is replayed, and waits until it is due."""
    DISPATCHED = "dispatched"
    """A relay has published it; whoever finishes the job removes it here."""
    DEAD = "dead"
    """It was given up; an operator replays or discards it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A job, as a worker or a publisher hands it in and as a relay gets it.

    Attributes:
        id: Task id.
        task: Name of the task.
        dependency: Whose bulkhead it belongs to.
        queue: Where a relay publishes it.
        message: A JSON object with all that publishing needs, kept as it is. Views show it, and
            redact what is under a key that is to be hidden; `{"names": […], "args": […]}` lets
            them do that for positional arguments as well; null for the names hides all of these.
        origin: Id of the dead letter that it is a replay of.
        attempts: Calls that have failed.
        dispatches: How often a relay has published it. It must travel with the message: what a
            copy reports after a later one was published is not heeded.
        age_seconds: Seconds since it was first published.
        due: When it was due, by the database's clock; `give_back` needs it.
        state: What it was before it was taken; `DISPATCHED`: a lease ran out.
    """

    id: str
    task: str
    dependency: str
    queue: str
    message: str
    origin: str | None = None
    attempts: int = 0
    dispatches: int = 0
    age_seconds: float = 0.0
    due: float | None = None
    state: State = State.OUTBOX
