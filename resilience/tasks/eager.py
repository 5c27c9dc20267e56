"""Fan-outs of an app whose tasks run where they are called (`task_always_eager`)."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from celery import Signature, states
from celery.result import AsyncResult

from resilience.errors import retry_after_of
from resilience.partial import PartAnswer, PartialResponse, assemble, outcome_of
from resilience.tasks.pending import PendingResponse
from resilience.tasks.resilience import Resilience
from resilience.tasks.response import announce_finished


@dataclass(frozen=True, slots=True, kw_only=True)
class EagerPart:
    """A part to run in this process.

    Attributes:
        signature: Of one task.
        required: Whether the whole response fails without it.
        seconds: Tells its budget when it begins; None: it has none.
    """

    signature: Signature[Any]
    required: bool
    seconds: Callable[[], float | None]


class EagerResponse(PendingResponse):
    """A handle on a fan-out that has ended."""

    def __init__(self, fan: str, answers: Sequence[PartAnswer]) -> None:
        """Hold the *answers* of all parts."""
        self.id = fan
        self._answers = answers

    def get(self) -> PartialResponse:
        """Return the response."""
        return assemble(self._answers)

    async def aget(self) -> PartialResponse:
        """Return the response."""
        return self.get()

    def stream(self) -> Iterator[PartAnswer]:
        """Yield every part."""
        yield from self._answers

    def finish(self, why: str) -> None:
        """Do nothing: it has ended."""


def run_here(
    resilience: Resilience,
    fan: str,
    calls: Mapping[str, EagerPart],
    on_complete: Signature[Any] | None,
) -> EagerResponse:
    """Run all parts of a fan-out, one after the other, and then its callback.

    Neither store nor broker is asked. A part that fails is missing, whatever
    `task_eager_propagates` says; what the callback raises is raised.

    Args:
        resilience: Of the app.
        fan: Id of the fan-out.
        calls: The parts by name.
        on_complete: Called with the response.
    """
    answers = [
        _answer(name, call, call.signature.apply_async(budget=call.seconds(), throw=False))
        for name, call in calls.items()
    ]
    pending = EagerResponse(fan, answers)
    response = pending.get()
    announce_finished(resilience, fan, "complete", response)
    if on_complete is not None:
        on_complete.apply_async((response,), task_id=f"{fan}-complete")
    return pending


def _answer(name: str, call: EagerPart, result: AsyncResult[Any]) -> PartAnswer:
    value: Any = result.result
    if result.state == states.SUCCESS:
        outcome = outcome_of(value)
        return PartAnswer(name=name, outcome=outcome, reason=outcome.reason, required=call.required)
    failed = isinstance(value, BaseException)
    return PartAnswer(
        name=name,
        outcome=None,
        reason=type(value).__name__ if failed else result.state,
        retry_after=retry_after_of(value) if failed else None,
        required=call.required,
    )
