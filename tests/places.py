"""Lists each place in the library where something may degrade, be dropped, skipped or refused.

A place is a function that names an event class, handles an exception without raising or announcing,
or makes an answer of a level below full.

`python -m tests.places` prints what is wrong with tests/places.toml, and what it lacks, ready to be
filled in.
"""

import ast
import functools
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.every_event import EVERY

ROOT = Path(__file__).parents[1]
LISTED = ROOT / "tests" / "places.toml"
EVENTS = {one.__name__ for one in EVERY}
NOT_LOOKED_AT = ("resilience/events/", "resilience/testing/")
"""What defines events, and what only tests of users import."""
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


@dataclass
class Place:
    """A function, a class or the body of a module.

    Attributes:
        announces: Classes of the events that it makes.
        silent: Lines that handle an error and neither raise nor announce, or that make an answer
            of a level below full.
    """

    announces: set[str] = field(default_factory=set)
    silent: list[int] = field(default_factory=list)


@functools.cache
def places() -> dict[tuple[str, str], Place]:
    """Return the places of the library, by file and function."""
    found: dict[tuple[str, str], Place] = {}
    for path in sorted(ROOT.glob("resilience/**/*.py")):
        name = str(path.relative_to(ROOT))
        if not name.startswith(NOT_LOOKED_AT):
            for at, place in places_in(path.read_text()).items():
                found[name, at] = place
    return found


def places_in(source: str) -> dict[str, Place]:
    """Return the places in the code *source*, by function."""
    found: dict[str, Place] = {}
    for names, node in _walk(ast.parse(source), ()):
        place = found.setdefault(".".join(names) or "(module)", Place())
        if isinstance(node, ast.Name) and node.id in EVENTS:
            place.announces.add(node.id)
        elif _is_silent(node):
            place.silent.append(node.lineno)  # type: ignore[attr-defined] # of a call or handler
    return {at: place for at, place in found.items() if place.announces or place.silent}


def _walk(node: ast.AST, names: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], ast.AST]]:
    """Yield what is below *node*, without annotations and questions for the class of an event."""
    for part, value in ast.iter_fields(node):
        if part in {"annotation", "returns"}:
            continue
        for child in value if isinstance(value, list) else [value]:
            if not isinstance(child, ast.AST) or _name_of(child) == "isinstance":
                continue
            inner = (*names, child.name) if isinstance(child, FUNCTIONS) else names
            yield inner, child
            yield from _walk(child, inner)


def _name_of(node: ast.AST) -> str:
    """Return the name of the function that *node* calls, if it calls one by its name."""
    return node.func.id if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else ""


def _is_silent(node: ast.AST) -> bool:
    if isinstance(node, ast.ExceptHandler):
        return not _says_so(node)
    if _name_of(node) == "Outcome" and isinstance(node, ast.Call):
        levels = [ast.unparse(one.value) for one in node.keywords if one.arg == "level"]
        return levels not in ([], ["Level.FULL"])
    return _name_of(node) in {"suppress", "ignore_errors"}


def _says_so(handler: ast.ExceptHandler) -> bool:
    """Tell whether a handler ends by raising, or announces what it does instead."""
    if isinstance(handler.body[-1], ast.Raise):
        return True
    for node in ast.walk(handler):
        if isinstance(node, ast.Call) and "announce" in ast.unparse(node.func):
            return True
        if isinstance(node, ast.Name) and node.id in EVENTS:
            return True
    return False


def listed() -> Mapping[tuple[str, str], Mapping[str, Any]]:
    """Return what tests/places.toml says, by file and function."""
    files = tomllib.loads(LISTED.read_text())
    return {(name, at): says for name, all_of in files.items() for at, says in all_of.items()}


def complaints(
    found: Mapping[tuple[str, str], Place], known: Mapping[tuple[str, str], Mapping[str, Any]]
) -> list[str]:
    """Return what is wrong with the list, one sentence each."""
    said = [f"{at[0]}::{at[1]} is gone; remove its entry" for at in known if at not in found]
    for (name, at), place in found.items():
        entry = known.get((name, at))
        if entry is None:
            said.append(f"{name}::{at} is new: add it, with why it may be silent if it is")
            continue
        if set(entry.get("announces", ())) != place.announces:
            listed_ones = sorted(entry.get("announces", ()))
            said.append(f"{name}::{at} announces {sorted(place.announces)}, not {listed_ones}")
        if place.silent and not entry.get("because"):
            said.append(f"{name}::{at} is silent in line {place.silent[0]}: why?")
        if entry.get("because") and not place.silent:
            said.append(f"{name}::{at} is no longer silent; remove its reason")
        if unknown := set(entry) - {"announces", "because"}:
            said.append(f"{name}::{at} has an unknown key {unknown}")
    return said


def stanzas() -> Iterator[str]:
    """Yield what the list lacks, in its own form."""
    known, file = listed(), ""
    for (name, at), place in places().items():
        if (name, at) in known:
            continue
        if name != file:
            file = name
            yield f'["{name}"]'
        announces = f"announces = {sorted(place.announces)}".replace("'", '"')
        parts = [announces] * bool(place.announces) + ['because = ""'] * bool(place.silent)
        yield f'"{at}" = {{ {", ".join(parts)} }}'


if __name__ == "__main__":
    wrong = complaints(places(), listed())
    print("\n".join([*(f"# {one}" for one in wrong), *stanzas()]))  # noqa: T201 - what it is for
