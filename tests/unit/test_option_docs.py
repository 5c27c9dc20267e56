"""docs/settings.md and docs/dependency.md list what there is to set, as the code has it."""

import dataclasses
import inspect
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from pydantic_core import PydanticUndefined

from resilience import BreakerPolicy, Dependency, FireAndForgetTask, ResilientTask, RetryPolicy
from resilience.bulkhead.adaptive import AdaptiveConcurrency
from resilience.errors import BUGS
from resilience.settings import PREFIX, Settings
from resilience.tasks import part

DOCS = Path(__file__).parents[2] / "docs"
COLUMNS = ["name", "default", "unit", "range", "meaning"]
NOT_OPTIONS = {"abstract", "Request", "Strategy"}
"""What makes the classes work, and is not for users to set."""


def written(value: object) -> str:
    """Return how a table writes a default."""
    if value in {dataclasses.MISSING, inspect.Parameter.empty, PydanticUndefined}:
        return "required"
    if value == BUGS:
        return "`BUGS`"
    if isinstance(value, frozenset):
        return f"`{','.join(sorted(value))}`"
    if dataclasses.is_dataclass(value):
        return f"`{type(value).__name__}()`"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return f"`{value!r}`" if not isinstance(value, str) else f'`"{value}"`'
    return f"`{value:g}`" if value < 1e6 else f"`{value}`"


def of_settings() -> Mapping[str, str]:
    """Return variables and defaults of the settings."""
    return {
        PREFIX + name.upper(): written(field.default)
        for name, field in Settings.model_fields.items()
    }


def of_fields(options: type) -> Mapping[str, str]:
    """Return options and defaults of a dataclass."""
    fields: Sequence[dataclasses.Field[Any]] = dataclasses.fields(options)
    return {field.name: written(_default(field)) for field in fields}


def _default(field: "dataclasses.Field[Any]") -> object:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def of_task(task: type, above: type) -> Mapping[str, str]:
    """Return the attributes of *task* that *above* has not, or with another value."""
    own = [one for one in task.__mro__ if issubclass(one, above) and one is not above]
    return {
        name: written(getattr(task, name))
        for one in own
        for name, value in vars(one).items()
        if not name.startswith("_") and name not in NOT_OPTIONS and not _is_method(value)
        if name not in vars(above) or getattr(task, name) != getattr(above, name)
    }


def _is_method(value: object) -> bool:
    return callable(value) or isinstance(value, property | classmethod | staticmethod)


def of_function(function: Any) -> Mapping[str, str]:  # noqa: ANN401 - any function
    """Return parameters and defaults."""
    parameters = inspect.signature(function).parameters
    return {name: written(one.default) for name, one in parameters.items()}


def table(document: str, heading: str) -> Mapping[str, str]:
    """Return names and defaults of the table under *heading*; all cells of a row are filled."""
    text = (DOCS / document).read_text()
    [section] = re.findall(
        rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL
    )
    rows = [
        [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        for line in section.splitlines()
        if line.startswith("|")
    ]
    assert rows[0] == COLUMNS
    assert all(all(row) and len(row) == len(COLUMNS) for row in rows)
    names = [row[0].strip("`") for row in rows[2:]]
    assert len(set(names)) == len(names)
    return dict(zip(names, (row[1] for row in rows[2:]), strict=True))


@pytest.mark.parametrize(
    ("document", "heading", "expected"),
    [
        ("settings.md", "Variables", of_settings()),
        ("dependency.md", "Dependency", of_fields(Dependency)),
        ("dependency.md", "BreakerPolicy", of_fields(BreakerPolicy)),
        ("dependency.md", "RetryPolicy", of_fields(RetryPolicy)),
        ("dependency.md", "AdaptiveConcurrency", of_fields(AdaptiveConcurrency)),
        ("dependency.md", "ResilientTask", of_task(ResilientTask, ResilientTask.__base__)),
        ("dependency.md", "FireAndForgetTask", of_task(FireAndForgetTask, ResilientTask)),
        ("dependency.md", "FanOut part", of_function(part)),
    ],
)
def test_table_has_every_option_with_its_default(
    document: str, heading: str, expected: Mapping[str, str]
) -> None:
    """Neither an option without a row nor a row without an option, and no default of yesterday."""
    assert table(document, heading) == expected
