"""How degraded what a task is given was, and how that carries into what it returns."""

import dataclasses
from typing import Any

from resilience.outcome import Outcome
from resilience.partial import outcome_of


def unwrapped(value: object) -> object:
    """Return *value*, or what the outcome that it is holds."""
    if isinstance(value, Outcome):
        return value.value
    if isinstance(value, list):
        return [unwrapped(item) for item in value]
    return value


def worst(values: list[Any]) -> Outcome[Any] | None:
    """Return the worst outcome among *values* and the lists in them, None if there is none."""
    found: Outcome[Any] | None = None
    for value in values:
        if isinstance(value, list):
            value = worst(value)  # noqa: PLW2901 - a chord's body gets a list of outcomes
        if isinstance(value, Outcome) and (found is None or value.level > found.level):
            found = value
    return found


def carry(before: Outcome[Any], value: object) -> Outcome[Any]:
    """Return *value* as an outcome at least as degraded as what it was made from."""
    outcome = outcome_of(value)
    if outcome.level >= before.level:
        return outcome
    return dataclasses.replace(before, value=outcome.value)
