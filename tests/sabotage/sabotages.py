"""Small sabotages of the product, each with the tests that must fail of it.

A sabotage finds its place by the name of a function, class or constant, not by a line, and so
survives what is moved around it. One whose text is not there exactly once is an error.
"""

from __future__ import annotations

import ast
import tomllib
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sabotage:
    """One mistake, built into a copy of the product.

    Attributes:
        area: The file that lists it.
        promise: What does not hold any more.
        at: File, and for Python `::` and the qualified name of what is broken there.
        text: What is replaced in it; it is there exactly once.
        instead: What takes its place.
        tests: Node ids of tests of which each must fail, in any of its variants.
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
        """Return the file below *root* that it changes, and what is in it then.

        Raises:
            LookupError: The place or the text is not there, or more than once.
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


def _span(source: str, qualified: str, at: str) -> tuple[int, int]:
    """Return where the source of *qualified* begins and ends, decorators included."""
    body: list[ast.stmt] = ast.parse(source).body
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
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return {node.name}
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    return {ast.unparse(one) for one in targets if one is not None}
