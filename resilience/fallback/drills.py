"""Drills: what a fallback chain would have answered, found out while nobody needs it."""

import asyncio
import contextvars
import itertools
import math
import random
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, Final

from resilience.budget import Limit, TimeoutBudget, call_within, current_budget, time_limit_async
from resilience.budget.threads import helper_threads
from resilience.bulkhead.slots import spared
from resilience.clock import SystemClock
from resilience.consistency.session import enter
from resilience.errors import (
    AttemptTimeoutError,
    BudgetExceededError,
    BulkheadFullError,
    is_bug,
)
from resilience.events import (
    Event,
    FallbackDrilled,
    FallbackDrillFailed,
    Listener,
    announce,
)
from resilience.events.base import SOFT_LIMIT
from resilience.fallback.chain import Chain
from resilience.fallback.progress import reason_of
from resilience.fallback.steps import Call, StaticStep, Step
from resilience.outcome import Outcome
from resilience.steering import Neutral

STEP_SECONDS: Final = 5.0
"""How long a drill waits for a step of a chain whose dependency has no timeout."""
LEFT_SHARE: Final = 0.5
"""A drill takes at most this share of the time that its job has left."""
LEFT_OUT: Final = "left out of drills"

Later = Callable[[Callable[[float], None]], bool]
"""Calls its argument at the end of the job that runs here, with the seconds that the job has left.
Returns False where no job runs."""
_monotonic = SystemClock.monotonic


def _never(_: Callable[[float], None]) -> bool:
    return False


class Drills:
    """Drills of one chain: one after every so many full answers of a process.

    When the answer of the call is on its way, a drill asks the steps as a degradation would, up to
    the first that answers: at the end of the job, else in a thread or in a task of the event loop,
    one at a time. It has a budget of its own, leaves the last slot to others and drops what it
    gets.

    Attributes:
        later: Puts a drill off until the job that runs here has ended.
    """

    def __init__(
        self,
        chain: Chain,
        call: tuple[str, str, float | None],
        transparent: tuple[type[Exception], ...],
        listeners: Iterable[Listener],
    ) -> None:
        """Drill *chain*, whose `drill_share` is more than 0.

        Args:
            chain: What a failed call would ask.
            call: What is called, of whom, and the seconds that each step may take; None:
                `STEP_SECONDS`.
            transparent: Exceptions that are raised past every fallback.
            listeners: Who hears what a drill found.
        """
        self.chain = chain
        self.name, self.dependency, seconds = call
        self.step_seconds = STEP_SECONDS if seconds is None else seconds
        self.transparent = transparent
        self.listeners = listeners
        self.later: Later = _never
        self._every = math.ceil(1 / chain.drill_share)
        # Processes that start together must not drill together.
        first = random.Random().randrange(self._every)  # noqa: S311 - no secret
        self._answers = itertools.count(first)
        self._thread: threading.Thread | None = None
        self._task: asyncio.Task[None] | None = None

    def due(self) -> bool:
        """Count a full answer; tell whether its call is to be drilled."""
        return next(self._answers) % self._every == 0

    def begin(self, call: Call) -> None:
        """Drill the chain for *call*, which has its answer; does not wait for the drill.

        Only what is remembered of this very call is asked for at once: soon it is the new answer.
        """
        drill = _Drill(self, call)
        for step, label in drill.remembered():
            with drill.noting(label):
                drill.asked[label] = step.answer(call)
        if self.later(drill.run):
            return
        if self._thread is None or not self._thread.is_alive():
            thread = threading.Thread(target=drill.run, name="resilience-drill", daemon=True)
            with suppress(RuntimeError):  # no thread can be started: the next drill tries again
                thread.start()
                self._thread = thread

    async def begin_async(self, call: Call) -> None:
        """Do the same without blocking the event loop, in which the drill then runs."""
        drill = _Drill(self, call)
        for step, label in drill.remembered():
            with drill.noting(label):
                drill.asked[label] = await step.answer_async(call)
        loop, last = asyncio.get_running_loop(), self._task
        if last is None or last.done() or last.get_loop() is not loop:
            self._task = loop.create_task(drill.run_async())


def drills_of(
    chain: Chain,
    call: tuple[str, str, float | None],
    transparent: tuple[type[Exception], ...],
    listeners: Iterable[Listener],
) -> Drills | None:
    """Return what drills *chain*, with the arguments of `Drills`; None: it is not drilled."""
    return Drills(chain, call, transparent, listeners) if chain.drill_share else None


class _Drill:
    """One drill.

    Attributes:
        asked: What some steps have answered already, or why they had no answer, by label.
    """

    def __init__(self, drills: Drills, call: Call) -> None:
        self.asked: dict[str, Outcome[Any] | Exception] = {}
        self._drills = drills
        self._call = call
        self._reasons: dict[str, str] = {}
        self._conclusive = True
        self._took = 0.0
        self._budget = current_budget()
        self._context = contextvars.copy_context()

    def remembered(self) -> Iterator[tuple[Step, str]]:
        """Yield the steps that answer from what is remembered of the call."""
        for step, label in self._drills.chain.labelled():
            if step.drilled and step.remember_seconds:
                yield step, label

    @contextmanager
    def noting(self, label: str) -> Iterator[None]:
        """Note the error of a step that is asked at once, and how long it took."""
        began = _monotonic()
        try:
            yield
        except Exception as error:  # noqa: BLE001 - any means that the step has no answer
            self.asked[label] = error
        self._took += _monotonic() - began

    def run(self, seconds_left: float = math.inf) -> None:
        """Ask the other steps and announce the result; take a part of *seconds_left* at most."""
        event = self._context.run(self._run, seconds_left)
        if event is not None:
            announce(event, self._drills.listeners)

    def _run(self, seconds_left: float) -> Event | None:
        seconds, began = self._seconds(seconds_left), _monotonic()
        if seconds <= 0:
            return None
        _leave_the_call()
        with TimeoutBudget(seconds) as budget:
            for step, label in self._steps():
                limit = self._limit(step, budget)
                try:
                    if label in self.asked:
                        answer = _again(self.asked[label])
                    elif limit is None:
                        answer = step.answer(self._call)
                    else:
                        answer = call_within(*limit, step.answer, (self._call,))
                except Exception as error:  # noqa: BLE001 - any means that the step has no answer
                    if self._ends(label, error, limit):
                        break
                else:
                    return self._found(answer, _monotonic() - began)
        return self._failed(_monotonic() - began)

    async def run_async(self) -> None:
        """Do the same as `run` in an event loop."""
        seconds, began = self._seconds(math.inf), _monotonic()
        if seconds <= 0:
            return
        _leave_the_call()
        event: Event | None = None
        with TimeoutBudget(seconds) as budget:
            for step, label in self._steps():
                limit = self._limit(step, budget)
                try:
                    if label in self.asked:
                        answer = _again(self.asked[label])
                    elif limit is None:
                        answer = await step.answer_async(self._call)
                    else:
                        async with time_limit_async(*limit):
                            answer = await step.answer_async(self._call)
                except Exception as error:  # noqa: BLE001 - any means that the step has no answer
                    if self._ends(label, error, limit):
                        break
                else:
                    event = self._found(answer, _monotonic() - began)
                    break
        event = event or self._failed(_monotonic() - began)
        if event is not None:
            announce(event, self._drills.listeners)

    def _seconds(self, seconds_left: float) -> float:
        """Return the budget of the drill: enough for each step, if the job has that much left.

        It is 0 while a call that was given up still runs in this process, maybe a step of an
        earlier drill: only so many may, and calls that somebody waits for come first.
        """
        if helper_threads.abandoned:
            return 0.0
        if self._budget is not None:
            seconds_left = min(seconds_left, self._budget.remaining())
        wanted = self._drills.step_seconds * (len(self._drills.chain) + 1)
        return min(wanted, LEFT_SHARE * seconds_left)

    def _steps(self) -> Iterator[tuple[Step, str]]:
        for step, label in self._drills.chain.labelled():
            if step.drilled:
                yield step, label
            else:
                self._reasons[label], self._conclusive = LEFT_OUT, False

    def _limit(self, step: Step, budget: TimeoutBudget) -> Limit | None:
        if isinstance(step, StaticStep):
            return None
        seconds = min(self._drills.step_seconds, budget.remaining())
        return seconds, partial(AttemptTimeoutError, step.source, seconds)

    def _ends(self, label: str, error: Exception, limit: Limit | None) -> bool:
        """Note why a step has no answer; return whether none is asked behind it."""
        self._reasons[label] = reason_of(error)
        # What steers or ends the job says nothing of the step, nor does a job without more time.
        ended = isinstance(error, Neutral) or type(error).__name__ == SOFT_LIMIT
        if limit is not None and limit[0] < self._drills.step_seconds:
            ended = ended or isinstance(error, AttemptTimeoutError | BudgetExceededError)
        if ended or isinstance(error, BulkheadFullError):
            self._conclusive = False
        return ended or is_bug(error, self._drills.transparent)

    def _found(self, answer: Outcome[Any], seconds: float) -> Event:
        return FallbackDrilled(
            call=self._drills.name,
            dependency=self._drills.dependency,
            level=answer.level,
            source=str(answer.source),
            age=answer.age,
            seconds=self._took + seconds,
            reasons=self._reasons,
        )

    def _failed(self, seconds: float) -> Event | None:
        """Return what to announce of a chain without an answer; None: it might have had one."""
        if not self._conclusive:
            return None
        return FallbackDrillFailed(
            call=self._drills.name,
            dependency=self._drills.dependency,
            seconds=self._took + seconds,
            reasons=self._reasons,
        )


def _leave_the_call() -> None:
    """Let the code that follows run beside the call: sparing slots, and outside its session.

    Else what a step reads would count as seen by the user, and a stale read mark the answer.
    """
    spared.set(1)
    enter(None)


def _again(found: Outcome[Any] | Exception) -> Outcome[Any]:
    if isinstance(found, Exception):
        raise found
    return found
