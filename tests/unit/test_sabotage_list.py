"""The list of sabotages: it stays alive while what it sabotages moves."""

import ast
import functools
from pathlib import Path

import pytest

from tests.sabotage.sabotages import ROOT, Sabotage, all_sabotages, parsed

AREAS = {"breaker", "budget", "fanout", "ledger", "slots", "hold", "admission", "fallback"}
AREAS |= {"redaction", "command_line", "flags", "read_your_writes", "metrics", "telemetry"}
AREAS |= {"page", "chaos", "fault_proxy", "proving", "pytest_plugin", "gameday"}
AREAS |= {"hardening_files", "hardening_guards", "hardening_input"}
AREAS |= {"hardening_limits", "hardening_messages", "hardening_rights"}
AREAS |= {"hardening_storevalues", "hardening_wire"}
EVERY = all_sabotages()


@functools.cache
def functions_of(name: str) -> set[str]:
    """Return the names of the functions of a test file."""
    body = ast.parse((ROOT / name).read_text()).body
    return {one.name for one in body if isinstance(one, ast.FunctionDef)}


@functools.cache
def dumped(path: Path) -> str:
    """Return the syntax tree of a file as text."""
    return ast.dump(parsed(path.read_text()))


def test_every_area_has_its_sabotages() -> None:
    """There are sixty or more, and each promises something of its own."""
    assert {one.area for one in EVERY} == AREAS
    assert len({str(one) for one in EVERY}) == len(EVERY) >= 60


@pytest.mark.parametrize("area", sorted(AREAS))
def test_sabotages_find_their_places(area: str) -> None:
    """The text is there once, what takes its place makes another program, and the tests exist."""
    for one in (one for one in EVERY if one.area == area):
        path, text = one.sabotaged(ROOT)

        if path.suffix == ".py":
            assert ast.dump(ast.parse(text)) != dumped(path), f"{one} changes nothing"
        assert one.tests, f"{one} names no test"
        for test in one.tests:
            name, _, function = test.partition("::")
            assert function.partition("[")[0] in functions_of(name), f"{one}: there is no {test}"


def test_text_that_is_not_there_once_is_an_error() -> None:
    """The error names the promise, the text and the place; a name that is gone is one, too."""
    place = {"area": "none", "promise": "p", "at": "resilience/levels.py::Level", "instead": ""}
    for text, at in (("nowhere", "Level"), ("=", "Level"), ("=", "Gone")):
        one = Sabotage(**place | {"at": f"resilience/levels.py::{at}"}, text=text, tests=())
        with pytest.raises(LookupError, match=at):
            one.sabotaged(ROOT)
