"""The way of one call through its policies, written once.

Outermost first: `fallback( budget( slot( breaker( attempt timeout( run )))))`. Faults that are
injected for a test stand innermost, around `run` (`resilience.faults`). Retry is a re-enqueue of
the whole job and stands outside. A breaker that is open refuses before a slot is
asked for; who waits for a slot holds no probe's permit, and is not slow. Nothing here knows of
Celery: a web handler calls a dependency the same way.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from resilience.breaker import Breaker, NoBreaker
from resilience.budget import (
    Allowance,
    Limit,
    call_within,
    current_budget,
    synchronous,
    time_limit_async,
)
from resilience.bulkhead import Slots
from resilience.dependency import Dependency
from resilience.errors import FeatureShedError, as_bug, is_bug, mark_wrong_call, retry_after_of
from resilience.events import Listener, log_event
from resilience.fallback import Call, Entry, Progress, StaticStep, Step, check_chain, drills_of
from resilience.flags.gate import FeatureGate, steps_above
from resilience.flags.trial import ON
from resilience.outcome import Outcome
from resilience.partial import is_full, outcome_of
from resilience.reports import Reports
from resilience.store import Answers
from resilience.store.answers import name_of

SLOT_WAIT_SECONDS = 5.0
"""How long a call waits for a slot that neither a timeout nor a budget limits."""


class Pipeline:
    """Calls of one dependency, with a limit in time and a fallback chain.

    The limit holds for the call and again for each step of the chain. Both end with the current
    budget (`TimeoutBudget`), if there is one.

    With fallbacks every call returns an `Outcome`. Without, it returns the plain value and raises
    what the function raises.

    Bugs are raised as they are, from the call and from its fallbacks: what *bugs* names, and a call
    with arguments that the function does not take. An error of reading an answer is a failure,
    and announced as `AnswerUnreadable`.

    Attributes:
        drills: Of its chain; None: it is not drilled.
    """

    def __init__(
        self,
        name: str,
        dependency: Dependency,
        answers: Answers,
        *,
        breaker: Breaker | NoBreaker | None = None,
        slots: Slots | None = None,
        gate: FeatureGate | None = None,
        fallbacks: Sequence[Entry] = (),
        neutral: tuple[type[Exception], ...] = (),
        bugs: tuple[type[Exception], ...] | None = None,
        listeners: Iterable[Listener] = (log_event,),
    ) -> None:
        """Compose the policies.

        Args:
            name: What is called, for events and for the key of `fallback.stale`. The dependency's
                own name stands for all of its functions; each then has keys of its own.
            dependency: Who is called.
            answers: Where `fallback.stale` and `fallback.cached` find answers.
            breaker: Guards the calls; None: nothing does.
            slots: Cap on calls in flight; None: there is none.
            gate: Of the feature that the calls are part of; None: they are part of none.
            fallbacks: Steps in non-decreasing level, tried in order.
            neutral: Exceptions that are no failure and always raised (Celery's `Retry`).
            bugs: Exceptions that are always raised as the code is wrong; None: the dependency's.
            listeners: Who hears of degradation.

        Raises:
            ConfigurationError: *fallbacks* are no chain.
        """
        self.name = name
        self.dependency = dependency
        self.fallbacks = check_chain(fallbacks, where=name)
        self._answers = answers
        self._breaker = breaker or NoBreaker()
        self._gate = gate
        self._bugs = dependency.bugs if bugs is None else bugs
        self._transparent = (*neutral, *self._bugs)
        self._reports = Reports(name, dependency.name, listeners)
        self._owner: object = None
        called = name, dependency.name, dependency.timeout
        self.drills = drills_of(self.fallbacks, called, self._transparent, listeners)
        self._allowance = Allowance(name, dependency.name, dependency.timeout)
        call: Callable[..., Any] = self._breaker.call
        acall: Callable[..., Awaitable[Any]] = self._breaker.acall
        self._admitted: Callable[..., Any] = partial(call, self._attempt)
        self._admitted_async: Callable[..., Awaitable[Any]] = partial(acall, self._attempt_async)
        if slots is not None:
            self._admitted = partial(self._in_slot, slots, self._admitted)
            self._admitted_async = partial(self._in_slot_async, slots, self._admitted_async)

    def call(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        """Return `function(*args, **kwargs)`, or a degraded `Outcome`.

        Raises:
            AllFallbacksFailedError: There are fallbacks and none had an answer.
            TypeError: *function* is a coroutine function, which is for `call_async`.
            ConfigurationError: Its answers are to be remembered and nothing tells whose they are:
                the pipeline has no name of its own, nor has *function* (a lambda, a method).
        """
        if self._gate is None or (draw := self._gate.draw()) is ON:
            return self._answer(function, args, kwargs)
        with draw:
            if not draw.shed:
                return draw.judge(self._answer(function, args, kwargs))
            shed = self._without(self._gate.error(draw), function, args, kwargs)
            return draw.judge(self.degrade(*shed))

    def _answer(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:  # noqa: ANN401 - what the function returns
        if not self.fallbacks:
            return self._guarded(function, args, kwargs)
        stored = self._stored(function, args, kwargs)
        refused = self._breaker.refusal()
        if refused is not None:
            return self.degrade(refused, self._call(args, kwargs, stored))
        try:
            value = self._guarded(function, args, kwargs)
        except Exception as error:
            if is_bug(error, self._transparent):
                raise
            return self.degrade(error, self._call(args, kwargs, stored))
        outcome = outcome_of(value, dependency=self.dependency.name)
        if self.drills is not None and not outcome.level and self.drills.due():
            self.drills.begin(self._call(args, kwargs, stored))
        if stored and is_full(outcome):
            self._answers.refresh(stored, outcome.value, max_age=self.fallbacks.remember_seconds)
        return outcome

    async def call_async(
        self,
        function: Callable[..., Awaitable[Any]],
        /,
        *args: Any,  # noqa: ANN401 - handed on
        **kwargs: Any,  # noqa: ANN401 - handed on
    ) -> Any:  # noqa: ANN401 - what the function returns
        """Do the same as `call` for a coroutine function."""
        if self._gate is None or (draw := await self._gate.draw_async()) is ON:
            return await self._answer_async(function, args, kwargs)
        async with draw:
            if not draw.shed:
                return draw.judge(await self._answer_async(function, args, kwargs))
            shed = self._without(self._gate.error(draw), function, args, kwargs)
            return draw.judge(await self.degrade_async(*shed))

    async def _answer_async(
        self, function: Callable[..., Awaitable[Any]], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:  # noqa: ANN401 - what the function returns
        if not self.fallbacks:
            return await self._admitted_async(function, args, kwargs)
        stored = self._stored(function, args, kwargs)
        refused = await self._breaker.refusal_async()
        if refused is not None:
            return await self.degrade_async(refused, self._call(args, kwargs, stored))
        try:
            value = await self._admitted_async(function, args, kwargs)
        except Exception as error:
            if is_bug(error, self._transparent):
                raise
            return await self.degrade_async(error, self._call(args, kwargs, stored))
        outcome = outcome_of(value, dependency=self.dependency.name)
        if self.drills is not None and not outcome.level and self.drills.due():
            await self.drills.begin_async(self._call(args, kwargs, stored))
        if stored and is_full(outcome):
            age = self.fallbacks.remember_seconds
            await self._answers.refresh_async(stored, outcome.value, max_age=age)
        return outcome

    def _without(
        self,
        error: FeatureShedError,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> tuple[Exception, Call, Mapping[str, str]]:
        """Return what `degrade` needs for a call without the feature, or raise *error*."""
        if not self.fallbacks:
            raise error
        call = self._call(args, kwargs, self._stored(function, args, kwargs))
        return error, call, steps_above([*self.fallbacks.labelled()], error.level)

    def _guarded(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:  # noqa: ANN401 - what the function returns
        return self._admitted(function, args, kwargs)

    def _in_slot(self, slots: Slots, call: Callable[..., Any], *args: Any) -> Any:  # noqa: ANN401 - handed on
        refused = self._breaker.refusal()
        if refused is not None:
            raise refused
        return slots.call(self._patience(), call, *args)

    async def _in_slot_async(
        self,
        slots: Slots,
        call: Callable[..., Awaitable[Any]],
        *args: Any,  # noqa: ANN401 - handed on
    ) -> Any:  # noqa: ANN401 - handed on
        refused = await self._breaker.refusal_async()
        if refused is not None:
            raise refused
        return await slots.acall(self._patience(), call, *args)

    def _patience(self) -> float:
        """Return how long a call may wait for a slot.

        Raises:
            BudgetExceededError: Nothing is left of the budget.
        """
        budget = current_budget()
        limit = self._allowance.own if budget is None else self._allowance.within(budget)
        return SLOT_WAIT_SECONDS if limit is None else limit[0]

    def _attempt(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:  # noqa: ANN401 - what the function returns
        budget = current_budget()
        limit = self._allowance.own if budget is None else self._allowance.within(budget)
        try:
            if limit is None:
                return synchronous(function(*args, **kwargs), self.name)
            value = call_within(*limit, function, args, kwargs, self._owner)
            return synchronous(value, self.name)
        except Exception as error:
            self._mark(error, function, args, kwargs)
            if limit is not None and not is_bug(error, self._transparent):
                self._allowance.excuse(error, budget, limit)
            raise

    async def _attempt_async(
        self, function: Callable[..., Awaitable[Any]], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:  # noqa: ANN401 - what the function returns
        budget = current_budget()
        limit = self._allowance.own if budget is None else self._allowance.within(budget)
        try:
            if limit is None:
                return await function(*args, **kwargs)
            async with time_limit_async(*limit):
                return await function(*args, **kwargs)
        except Exception as error:
            self._mark(error, function, args, kwargs)
            if limit is not None and not is_bug(error, self._transparent):
                self._allowance.excuse(error, budget, limit)
            raise

    def _mark(
        self,
        error: Exception,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        """Let the breaker, which has a list of its own, see a bug where this pipeline does."""
        if is_bug(error, self._bugs):
            as_bug(error)
        else:
            mark_wrong_call(error, function, args, kwargs)

    def _stored(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> str:
        # Before the call: a function may change what it is given, and the key must not follow.
        if not self.fallbacks.remember_seconds:
            return ""
        shared = self.name == self.dependency.name
        name = f"{self.name}:{name_of(function)}" if shared else self.name
        return self._answers.key_of_call(name, args, kwargs)

    def _call(self, args: tuple[Any, ...], kwargs: dict[str, Any], stored: str) -> Call:
        return Call(name=self.name, args=args, kwargs=kwargs, answers=self._answers, stored=stored)

    def degrade(
        self, error: Exception, call: Call, tried: Mapping[str, str] | None = None
    ) -> Outcome[Any]:
        """Return what the first step answers that has an answer and is not among those *tried*.

        Raises:
            AllFallbacksFailedError: None of them had one.
        """
        reasons = {"run": self._reports.why(error), **(tried or {})}
        wait = retry_after_of(error)
        for step, label in self.fallbacks.labelled():
            if label in reasons:
                continue
            try:
                answer = self._ask(step, call, Progress(error, reasons, label))
            except Exception as also:
                if is_bug(also, self._transparent):
                    raise
                reasons[label] = self._reports.why(also, step.source)
                wait = retry_after_of(also) if wait is None else wait
            else:
                return self._reports.degraded(answer, error)
        raise self._reports.exhausted(reasons, wait) from error

    def _ask(self, step: Step, call: Call, _: Progress) -> Outcome[Any]:
        limit = self._limit_of(step)
        if limit is None:
            return step.answer(call)
        answer: Outcome[Any] = call_within(*limit, step.answer, (call,), None, self._owner)
        return answer

    async def degrade_async(
        self, error: Exception, call: Call, tried: Mapping[str, str] | None = None
    ) -> Outcome[Any]:
        """Do the same as `degrade` without blocking the event loop."""
        reasons = {"run": self._reports.why(error), **(tried or {})}
        wait = retry_after_of(error)
        for step, label in self.fallbacks.labelled():
            if label in reasons:
                continue
            try:
                limit = self._limit_of(step)
                if limit is None:
                    answer = await step.answer_async(call)
                else:
                    async with time_limit_async(*limit):
                        answer = await step.answer_async(call)
            except Exception as also:
                if is_bug(also, self._transparent):
                    raise
                reasons[label] = self._reports.why(also, step.source)
                wait = retry_after_of(also) if wait is None else wait
            else:
                return self._reports.degraded(answer, error)
        raise self._reports.exhausted(reasons, wait) from error

    def _limit_of(self, step: Step) -> Limit | None:
        # A static answer takes no time, and is there even if nothing else is.
        return None if isinstance(step, StaticStep) else self._allowance.of_step(step.source)
