"""Ask workers from an event loop, in what is left of a request's budget."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from resilience import (
    AttemptTimeoutError,
    BudgetExceededError,
    FanOut,
    Outcome,
    PartAnswer,
    PartialResponse,
    Pipeline,
    Resilience,
    StoreUnavailableError,
    TimeoutBudget,
)
from resilience.budget import client_timeout
from resilience.errors import ResilienceError
from resilience.fallback import Step
from resilience.levels import Level
from resilience.partial import assemble
from resilience.tasks.fanout import Part
from resilience.tasks.pending import PendingResponse
from resilience.tasks.response import NOT_IN_TIME

DEFAULT_WORKER = "default worker"
"""Who is to blame for a task without a dependency."""
EXPIRED = "TaskRevokedError"
"""Reason of a part that waited in its queue until it was of no use."""


class NotServedError(ResilienceError):
    """A request cannot be served now: level 4.

    Attributes:
        dependency: Who is to blame.
        reasons: Why each part is missing.
        retry_after: Seconds until a retry makes sense; None if nobody said.
        facts: What else the client should know.
    """

    def __init__(
        self,
        dependency: str,
        reasons: dict[str, str],
        retry_after: float | None = None,
        **facts: str,
    ) -> None:
        super().__init__(dependency, reasons, retry_after)
        self.dependency = dependency
        self.reasons = reasons
        self.retry_after = retry_after
        self.facts = facts


class PartMissingError(ResilienceError):
    """A part of a fan-out has no answer, for another reason than time."""


def workers_pipeline(
    resilience: Resilience, dependency: str, *, fallbacks: Sequence[Step]
) -> Pipeline:
    """Return the pipeline through which the front asks the workers of *dependency*.

    The breaker is not in it: that guards the service, and workers have answers of their own while
    it is open.
    """
    return Pipeline(
        f"front.{dependency}",
        resilience.dependencies[dependency],
        resilience.answers,
        fallbacks=fallbacks,
        listeners=resilience.listeners,
    )


async def ask(fanout: FanOut, seconds: float) -> PartialResponse:
    """Return what *fanout* can deliver in *seconds*, never later and never an error.

    Publishing may have to wait for the broker, so a thread does it.
    """

    def publish(budget: TimeoutBudget) -> PendingResponse:
        left = budget.remaining()
        if left <= 0:
            raise TimeoutError
        return fanout.apply_async(budget=left)

    if seconds > 0:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds), TimeoutBudget(seconds) as budget:
                pending = await asyncio.to_thread(publish, budget)
                return await pending.aget()
    return assemble(
        PartAnswer(name=name, outcome=None, reason=NOT_IN_TIME, required=one.required)
        for name, one in fanout.parts.items()
    )


async def require(fanout: FanOut, seconds: float, **facts: str) -> PartialResponse:
    """Do the same as `ask`, for a fan-out whose required parts the request cannot do without.

    Args:
        fanout: What to ask.
        seconds: How long.
        facts: For the client, if it cannot be served.

    Raises:
        NotServedError: A required part is missing.
    """
    response = await ask(fanout, seconds)
    if response.level is not Level.FAILED:
        return response
    lacking = [name for name in response.missing if fanout.parts[name].required]
    reasons = {name: response.reasons[name] for name in lacking}
    dependency = fanout.parts[lacking[0]].signature.type.dependency or DEFAULT_WORKER
    raise NotServedError(dependency, reasons, response.retry_after, **facts)


async def ask_one(fanout: FanOut, seconds: float) -> Outcome[Any]:
    """Return the answer of the only part of *fanout*.

    Raises:
        AttemptTimeoutError: It did not come in *seconds*.
        StoreUnavailableError: Nobody could be asked without the store.
        PartMissingError: It failed.
    """
    response = await ask(fanout, seconds)
    return answer_of(response, fanout, seconds)


def answer_of(response: PartialResponse, fanout: FanOut, seconds: float) -> Outcome[Any]:
    """Return the answer of the first part of *fanout*, given all that it delivered in *seconds*.

    Raises:
        AttemptTimeoutError: It did not come in time.
        StoreUnavailableError: Nobody could be asked without the store.
        PartMissingError: It failed.
    """
    name, part = next(iter(fanout.parts.items()))
    dependency = part.signature.type.dependency
    reason = response.reasons.get(name)
    if name in response.missing:
        msg = f"{name}: {reason}"
        if reason in {NOT_IN_TIME, EXPIRED}:
            raise AttemptTimeoutError(dependency, seconds)
        if reason == StoreUnavailableError.__name__:
            raise StoreUnavailableError(msg)
        raise PartMissingError(msg)
    return Outcome(
        value=response.data[name],
        level=Level.FULL if name not in response.degraded else response.level,
        reason=reason,
        source=response.sources.get(name),
        age=response.ages.get(name),
        dependency=dependency,
    )


class Composite:
    """Parts that are asked one after the other, each for its share of one budget.

    Attributes:
        parts: What became of those asked so far.
    """

    def __init__(self, budget: TimeoutBudget) -> None:
        """Ask nobody yet."""
        self.parts: list[PartAnswer] = []
        self._budget = budget

    async def ask(
        self,
        name: str,
        wanted: Part,
        *,
        allocation: float | None = None,
        default: Outcome[Any] | None = None,
    ) -> Any:  # noqa: ANN401 - any JSON
        """Return the value of one part.

        Args:
            name: Of the part.
            wanted: Whom to ask.
            allocation: Share of the budget; None: all that remains.
            default: Stands in for the answer; needed unless the part is required.

        Raises:
            NotServedError: It is required, and has no answer, fresh or stale.
        """
        fanout, response = FanOut(**{name: wanted}), None

        async def ask_for_it() -> Outcome[Any]:
            nonlocal response
            seconds = client_timeout(self._budget.total)
            response = await (require if wanted.required else ask)(fanout, seconds)
            return answer_of(response, fanout, seconds)

        instead: dict[str, Any] = {} if wanted.required else {"default": default}
        try:
            outcome = await self._budget.arun(ask_for_it, allocation=allocation, **instead)
        except BudgetExceededError as error:
            dependency = wanted.signature.type.dependency
            raise NotServedError(dependency, {name: NOT_IN_TIME}) from error
        self.parts.append(
            PartAnswer(
                name=name,
                outcome=outcome,
                reason=NOT_IN_TIME if response is None else response.reasons.get(name),
                retry_after=None if response is None else response.retry_after,
                required=wanted.required,
            )
        )
        return outcome.value
