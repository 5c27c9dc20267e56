"""How a run ends whose job will run again."""

import sys
import traceback
from random import Random
from types import TracebackType
from typing import Any, NoReturn, Self

from celery.exceptions import Retry

from resilience.retry import Dead
from resilience.retry import Retry as Later

NOWHERE = -1
"""Place in a frame's code; without one nobody looks for what to underline in the line."""


class KeptError(Retry):
    """The ledger keeps the job until it is due again."""

    def __init__(self, error: Exception | None, seconds: float) -> None:
        """Say that the job failed with *error* and is due in *seconds*."""
        why = f"kept in the ledger for {seconds:.3g} s"
        super().__init__(why, exc=error, when=seconds)  # type: ignore[arg-type] # any number
        self.args = (error, seconds)  # Celery has the exception itself in them, a cycle

    def __reduce__(self) -> tuple[type[Self], tuple[Any, ...]]:
        return type(self), (self.exc, self.when)


def decide(
    task: Any,  # noqa: ANN401 - a FireAndForgetTask, whose module imports this one
    error: BaseException,
    attempt: int,
    age_seconds: float,
    random: Random,
) -> Later | Dead:
    """Return what becomes of a job of *task*; arguments as of `RetryPolicy.decide`."""
    known = task.resilience.dependencies.require(task.dependency, where=f"task {task.name}")
    bugs = known.bugs if task.bugs is None else task.bugs
    decision: Later | Dead = task.policy.decide(
        error, attempt=attempt, age_seconds=age_seconds, random=random, bugs=bugs
    )
    return decision


def end_kept(error: Exception | None, seconds: float) -> NoReturn:
    """End the run of a job that failed with *error* and is due again in *seconds*.

    Raises:
        KeptError: Always.
    """
    # The ledger has the error's frames; for Celery to format them takes as long as a write.
    raise KeptError(error, seconds) from None


def drop_frames() -> None:
    """Drop the frames, all but the one in `end_kept`, of the KeptError that is handled, if one is.

    Celery copies each of them with all places in its code, and its own is large: two thirds of
    what it took to park a job.
    """
    error = sys.exception()
    if isinstance(error, KeptError):
        *_, (frame, line) = traceback.walk_tb(error.__traceback__)
        error.__traceback__ = TracebackType(None, frame, NOWHERE, line)
