"""Fallbacks of tasks with `pydantic=True`: they take and return what the body does.

Celery puts a wrapper around such a body: it makes models of the arguments, and of a model that is
returned what can be sent. A fallback step stands in the body's place, and so in that wrapper.
"""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from types import CellType, FunctionType
from typing import Any, Final

from resilience.errors import ConfigurationError
from resilience.fallback import Chain, FunctionStep, StaticStep, Step
from resilience.outcome import Outcome

BODY: Final = "task_fun"
"""What Celery's wrapper calls the body that it is around."""


def with_models(task: Any, steps: Chain) -> Chain:  # noqa: ANN401 - a task or its class
    """Return *steps* so that they take and return what the body of *task* does.

    Raises:
        ConfigurationError: Celery's wrapper around the body is not the one that is known here.
    """
    kind: Any = task if inspect.isclass(task) else type(task)
    wrapper = _wrapper_of(kind)
    if wrapper is None:
        return steps
    bound = _bound(kind, task)
    return Chain((_with_models(wrapper, bound, one) for one in steps), steps.drill_share)


def check_models(task: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:  # noqa: ANN401 - a task
    """Let only pass what the body of *task* can be called with, if Celery makes models of it.

    Raises:
        pydantic.ValidationError: An argument is no such model: the call is wrong, and no answer of
            the dependency is.
    """
    kind: Any = type(task)
    wrapper = _wrapper_of(kind)
    if wrapper is not None:
        _around(wrapper, _nothing)(*_bound(kind, task), *args, **kwargs)


def _nothing(*_: object, **__: object) -> None:
    """Stand in the body's place."""


def _with_models(wrapper: FunctionType, bound: tuple[object, ...], step: Step) -> Step:
    if isinstance(step, FunctionStep):
        function = _in_place_of_body(wrapper, bound, step.function)
        return FunctionStep(function, step.level, drilled=step.drilled)
    if isinstance(step, StaticStep):
        return StaticStep(_sendable(step.value), step.level)
    return step


def _in_place_of_body(
    wrapper: FunctionType, bound: tuple[object, ...], function: Callable[..., Any]
) -> Callable[..., Any]:
    @functools.wraps(function)
    def answer(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as the body's
        outcome: Outcome[Any] | None = None

        def body(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as above
            nonlocal outcome
            value = function(*args[len(bound) :], **kwargs)
            if isinstance(value, Outcome):
                outcome, value = value, value.value
            return value

        value = _sendable(_around(wrapper, body)(*bound, *args, **kwargs))
        return value if outcome is None else dataclasses.replace(outcome, value=value)

    return answer


@functools.cache
def _wrapper_of(kind: Any) -> FunctionType | None:  # noqa: ANN401 - a task class
    """Return what Celery has put around the body of tasks of this *kind*, None if it is nothing.

    Raises:
        ConfigurationError: It is not the wrapper that is known here.
    """
    run = kind.run
    if isinstance(run, FunctionType):
        names = run.__code__.co_freevars
        if BODY in names and run.__globals__.get("__name__") == "celery.app.base":
            return run
    if getattr(kind, "_dump_pydantic_arguments", None) is None:
        return None
    msg = (
        f"task {kind.name}: what this version of Celery wraps around a body with pydantic=True is "
        "unknown; use one that was tested"
    )
    raise ConfigurationError(msg)


def _bound(kind: Any, task: object) -> tuple[object, ...]:  # noqa: ANN401 - as above
    """Return *task* if it is the body's first argument."""
    return () if isinstance(inspect.getattr_static(kind, "run"), staticmethod) else (task,)


def _around(wrapper: FunctionType, body: Callable[..., Any]) -> FunctionType:
    """Return Celery's *wrapper* around *body*."""
    names = wrapper.__code__.co_freevars
    cells = [
        CellType(body) if name == BODY else cell
        for name, cell in zip(names, wrapper.__closure__ or (), strict=True)
    ]
    return FunctionType(
        wrapper.__code__, wrapper.__globals__, wrapper.__name__, wrapper.__defaults__, tuple(cells)
    )


def _sendable(value: object) -> object:
    """Return *value*, or what a model that it is sends: one of another class than the body's."""
    dump = getattr(value, "model_dump", None)
    return dump(mode="json") if dump is not None and not inspect.isclass(value) else value
