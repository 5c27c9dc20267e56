"""docs/compatibility.md goes through all that Celery documents, and what it calls kept is run."""

import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from celery import Celery, Task
from kombu import Producer

from tests.compatibility.apps.declared import DECLARED
from tests.compatibility.test_publish_options import FORMS

PAGE = Path(__file__).parents[2] / "docs" / "compatibility.md"
ROW = re.compile(r"^\| `(\w+)` \|(.*)\|$", re.MULTILINE)
DOCUMENTED = re.compile(r"^ {4}(\w+) \(", re.MULTILINE)
VERDICTS = {"kept", "different", "refused"}
OF_MESSAGES = {"stamped_headers", "argsrepr", "kwargsrepr", "exchange_type"}
"""Options that Celery documents in its guides only."""
BY_CANVAS = {"group_id", "group_index", "chord", "chain", "replaced_task_nesting"}
"""tests/integration/test_task_canvas.py runs them."""
IN_EVERY_FORM = {"args"}
OF_CELERY = {"abstract", "backend", "from_config", "name", "priority", "request"}
"""Attributes that no class sets, or that Celery is about to drop."""


def rows(title: str) -> dict[str, list[str]]:
    """Return the other cells of each row of the table under *title*."""
    section = PAGE.read_text().split(f"## {title}\n")[1].split("\n## ")[0]
    return {
        name: [cell.strip() for cell in cells.split("|")] for name, cells in ROW.findall(section)
    }


def parameters(function: Callable[..., Any]) -> set[str]:
    """Return the names of its parameters, but for those that take any."""
    some = inspect.signature(function).parameters.values()
    return {one.name for one in some if one.kind is not inspect.Parameter.VAR_KEYWORD}


def test_every_option_of_celery_is_in_the_table() -> None:
    """Those of the signatures, of the docstring, and of the publish that it refers to."""
    said = inspect.getdoc(Task.apply_async) or ""
    options = parameters(Task.apply_async) | set(DOCUMENTED.findall(said.split("Returns:")[0]))
    options |= parameters(Celery.send_task) | parameters(Producer.publish) | OF_MESSAGES

    assert set(rows("Options of `apply_async`")) == options - {"self", "name", "body"}


def test_every_name_of_a_task_is_in_the_tables() -> None:
    """What a task of Celery has without an underscore in front."""
    names = {name for name in vars(Task) if not name.startswith("_")}
    attributes, methods = rows("Attributes of `Task`"), rows("Methods and hooks of `Task`")

    assert set(attributes) | set(methods) == names
    assert not set(attributes) & set(methods)


@pytest.mark.parametrize(
    ("title", "verdicts"),
    [
        ("Options of `apply_async`", 2),
        ("Attributes of `Task`", 1),
        ("Methods and hooks of `Task`", 1),
    ],
)
def test_each_row_says_what_becomes_of_it(title: str, verdicts: int) -> None:
    """One of three words, and a difference where there is one."""
    for name, cells in rows(title).items():
        *given, difference = cells
        assert len(given) == verdicts, name
        assert set(given) <= VERDICTS, name
        assert difference or set(given) == {"kept"}, name


def test_each_accepted_option_is_run() -> None:
    """In tests/compatibility/test_publish_options.py, which names a form after its option."""
    forms = {form.split("-")[0] for form in FORMS}
    accepted = {
        name for name, cells in rows("Options of `apply_async`").items() if "refused" not in cells
    }

    assert accepted - forms == BY_CANVAS | IN_EVERY_FORM


def test_each_attribute_that_a_class_can_set_is_declared_to_a_worker() -> None:
    """The tests of options run a task that declares them all."""
    classes = {"Request", "Strategy"}

    assert set(rows("Attributes of `Task`")) == set(DECLARED) | OF_CELERY | classes
