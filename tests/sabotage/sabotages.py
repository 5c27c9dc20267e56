"""Small mistakes to make in the product, each with the tests that must then fail.

A sabotage finds its place by the name of a function, class or constant, not by a line: code around
it may move. It is an error if its text is not there exactly once.
"""

from __future__ import annotations

import ast
import functools
import tomllib
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sabotage:
    """One mistake, to be made in a copy of the product.

    Attributes:
        area: Name of the file that lists it, without the suffix.
        promise: What no longer holds.
        at: The file; in Python followed by `::` and the qualified name of the function, class or
            constant.
        text: What is replaced there, where it occurs exactly once.
        instead: What takes its place.
        tests: Node ids of tests, all of which must fail, each in at least one variant.
    """

    area: str
    promise: str
    at: str
    text: str
    instead: str
    tests: tuple[str, ...]

    def __str__(self) -> str:
        """Return area and promise."""
        return f"{self.area}: {self.promise}"

    def sabotaged(self, root: Path) -> tuple[Path, str]:
        """Return the file below *root* that it changes, and the changed source.

        Raises:
            LookupError: The place is not there, or the text is not there exactly once.
        """
        name, _, qualified = self.at.partition("::")
        source = (root / name).read_text()
        start, end = _span(source, qualified, self.at) if qualified else (0, len(source))
        found = source[start:end].count(self.text)
        if found != 1:
            msg = f"{self}: {self.text!r} is {found} times in {self.at}; name what is there once"
            raise LookupError(msg)
        place = source.index(self.text, start)
        return root / name, source[:place] + self.instead + source[place + len(self.text) :]


def all_sabotages() -> list[Sabotage]:
    """Return the sabotages of all areas."""
    return [
        Sabotage(area=path.stem, tests=tuple(one.pop("tests")), **one)
        for path in sorted(HERE.glob("*.toml"))
        for one in tomllib.loads(path.read_text())["sabotage"]
    ]


@functools.lru_cache(maxsize=32)
def parsed(source: str) -> ast.Module:
    """Return the syntax tree of *source*; many sabotages change the same few files."""
    return ast.parse(source)


def _span(source: str, qualified: str, at: str) -> tuple[int, int]:
    """Return the offsets in *source* at which *qualified* begins and ends, with its decorators."""
    body: list[ast.stmt] = parsed(source).body
    node: ast.stmt | None = None
    for name in qualified.split("."):
        node = next((one for one in body if name in _names(one)), None)
        if node is None:
            msg = f"{at}: there is no {name}; name a function, class or constant of the file"
            raise LookupError(msg)
        body = getattr(node, "body", [])
    assert node is not None
    lines = source.splitlines(keepends=True)
    first = min([node.lineno, *(one.lineno for one in getattr(node, "decorator_list", ()))])
    return sum(map(len, lines[: first - 1])), sum(map(len, lines[: node.end_lineno]))


def _names(node: ast.stmt) -> set[str]:
    """Return the names that a definition or an assignment binds."""
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return {node.name}
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    return {ast.unparse(one) for one in targets if one is not None}
