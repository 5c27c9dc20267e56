"""How degraded what a task is given was, and how that carries into what it returns."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from typing import Any

from resilience.outcome import Outcome
from resilience.partial import outcome_of

_noted: ContextVar[list[Any] | None] = ContextVar("resilience_noted", default=None)


def unwrapped(value: object) -> object:
    """Return *value*, or what the outcome that it is holds."""
    if isinstance(value, Outcome):
        return value.value
    if isinstance(value, list):
        return [unwrapped(item) for item in value]
    return value


def values_of(
    args: Sequence[Any] | None, kwargs: Mapping[str, Any] | None
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return positional and keyword arguments with the value of each outcome in its place."""
    values = tuple(unwrapped(value) for value in args or ())
    return values, {name: unwrapped(value) for name, value in (kwargs or {}).items()}


def worst(values: list[Any]) -> Outcome[Any] | None:
    """Return the worst outcome among *values* and the lists in them, None if there is none."""
    kinds = set(map(type, values))
    if not any(issubclass(kind, (Outcome, list)) for kind in kinds):
        return None  # so that a long list of plain values costs little
    found: Outcome[Any] | None = None
    for value in values:
        if isinstance(value, list):
            value = worst(value)  # noqa: PLW2901 - a chord's body gets a list of outcomes
        if isinstance(value, Outcome):
            found = worse(value, found)
    return found


def worse(one: Outcome[Any], other: Outcome[Any] | None) -> Outcome[Any]:
    """Return the more degraded of two outcomes, *one* if they are equally so."""
    return other if other is not None and other.level > one.level else one


def carry(before: Outcome[Any], value: object) -> Outcome[Any]:
    """Return *value* as an outcome at least as degraded as what it was made from."""
    outcome = outcome_of(value)
    if outcome.level >= before.level:
        return outcome
    return dataclasses.replace(before, value=outcome.value)


def note(degraded: Outcome[Any]) -> None:
    """Note that the body that runs, if one does, was given a degraded answer."""
    noted = _noted.get()
    if noted is not None:
        noted.append(degraded)


def noting(body: Callable[..., Any], *args: Any) -> Any:  # noqa: ANN401 - as the body's
    """Return `body(*args)`, as an outcome if a degraded answer was noted meanwhile."""
    noted: list[Any] = []
    token = _noted.set(noted)
    try:
        value = body(*args)
    finally:
        _noted.reset(token)
    degraded = worst(noted)
    return value if degraded is None else carry(degraded, value)
