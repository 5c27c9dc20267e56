"""Why the body of a job does not run."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Final

from celery.app.task import Context

REFUSED: Final = "resilience_refused"
"""Where the request of a job that is answered without its body keeps its `Refusal`."""
NOTHING: Final = object()


@dataclasses.dataclass(slots=True)
class Refusal:
    """Why a job is answered without its body, and with what.

    Attributes:
        error: What stands in the body's place: there was no room for the job where it was
            published, or its thread was given up.
        tried: Why fallback steps that were tried already had no answer, by label.
        may_retry: Whether the job was begun by a worker, and `autoretry_for` holds for it.
        answer: What it was answered with.
    """

    error: Exception
    tried: Mapping[str, str] = dataclasses.field(default_factory=dict)
    may_retry: bool = True
    answer: Any = NOTHING


def take_refusal(request: Context | None) -> Refusal | None:
    """Return why the job of *request* is answered without its body; once: a step may call that."""
    refusal = refusal_of(request)
    if request is not None and refusal is not None:
        request.update({REFUSED: None})
    return refusal


def refusal_of(request: Context | None) -> Refusal | None:
    """Return the same, and leave it there."""
    refusal = None if request is None else request.get(REFUSED)
    return refusal if isinstance(refusal, Refusal) else None
