"""What becomes of a job whose dependency shall hold jobs while its circuit is open."""

import threading
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from celery import Task
from celery.exceptions import Reject

from resilience.breaker import State
from resilience.budget import current_budget
from resilience.errors import CircuitOpenError, StoreUnavailableError, is_bug, text_of
from resilience.fallback import Chain, Entry, check_chain
from resilience.tasks.attempt import TaskPipeline
from resilience.tasks.resilience import Resilience

BACK_SECONDS = 0.5
"""A refused job goes back to the broker, but not faster than this: its worker, which hears within
half a second that the circuit has opened, would take it again at once."""


class HoldingPipeline(TaskPipeline):
    """Hands a job that the circuit refuses back to the broker, which costs it no attempt.

    So it does for a job that failed as a probe: the job went ahead for all of them, while the
    dependency was known to be unwell. That is for an hour; then its failures are its own.

    Only in a worker, and for a message that is not acknowledged yet; else a refusal is an error.
    """

    def __init__(
        self,
        task: Task[Any, Any],
        dependency: str,
        fallbacks: Chain,
        resilience: Resilience,
    ) -> None:
        """Guard calls of *dependency* that *task* makes; raises as `TaskPipeline`."""
        super().__init__(task, dependency, fallbacks, resilience)
        self._spares = resilience.spares

    def _answer(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:  # noqa: ANN401 - what the function returns
        if self._can_go_back():
            refused = self._breaker.refusal()
            if refused is not None:
                _go_back(refused, BACK_SECONDS)
        return super()._answer(function, args, kwargs)

    def _guarded(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:  # noqa: ANN401 - what the function returns
        if not self._can_go_back():
            return super()._guarded(function, args, kwargs)
        entered = False

        def attempt(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as the function's
            nonlocal entered
            entered = True
            return function(*args, **kwargs)

        # The pulse of `refusal`, a moment ago, told this process of the circuit as it is.
        probing = self._breaker.known_state is State.HALF_OPEN
        try:
            return super()._guarded(attempt, args, kwargs)
        except Exception as error:
            if not entered and isinstance(error, CircuitOpenError):
                _go_back(error, BACK_SECONDS)  # all permits to probe were taken
            if entered and probing and self._is_spared(error):
                _go_back(error, 0.0)
            raise

    def _can_go_back(self) -> bool:
        request = self._task.request
        return bool(self._task.acks_late and not request.called_directly and not request.is_eager)

    def _is_spared(self, error: Exception) -> bool:
        if is_bug(error, self._transparent) or not self._breaker.blames(error):
            return False
        request = self._task.request
        try:
            return self._spares.spare(str(request.id))
        except StoreUnavailableError:
            return not (request.delivery_info or {}).get("redelivered")


def pipeline_of(
    task: Task[Any, Any],
    dependency: str,
    fallbacks: Sequence[Entry],
    resilience: Resilience,
) -> TaskPipeline:
    """Return the pipeline around the body of *task*, as its dependency declares.

    Raises:
        ConfigurationError: *dependency* is unknown, or *fallbacks* are no chain.
    """
    known = resilience.dependencies.require(dependency, where=f"task {task.name}")
    kind = HoldingPipeline if known.on_open == "hold" else TaskPipeline
    chain = check_chain(fallbacks, where=f"task {task.name}")
    return kind(task, dependency, chain, resilience)


def _go_back(error: Exception, seconds: float) -> NoReturn:
    budget = current_budget()
    if budget is not None:
        seconds = min(seconds, budget.remaining())
    if seconds > 0:
        threading.Event().wait(seconds)
    # Without its frames: nothing is wrong with the job, and its log line is enough.
    raise Reject(text_of(error), requeue=True) from None
