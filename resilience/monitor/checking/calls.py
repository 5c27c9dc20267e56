"""What the body of a function calls, as far as its source shows it."""

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from types import FunctionType, ModuleType
from typing import Any, Final

from celery import Task

from resilience.pipeline import Pipeline
from resilience.tasks import FanOut

DEPTH: Final = 3
"""So many functions deep it is followed from one to the next, within one package."""
AWAITING: Final = frozenset({"get", "aget", "join", "join_native", "wait"})


@dataclass(frozen=True, slots=True)
class Calls:
    """What a function does before it returns.

    Attributes:
        tasks: Names of tasks that it runs, or whose results it waits for.
        dependencies: Those of the tasks, and of pipelines that it calls.
        texts: Functions that it hands a literal text as their first argument, with that text.
        retries: Its calls of `self.retry`.
    """

    tasks: set[str] = field(default_factory=set)
    dependencies: set[str | None] = field(default_factory=set)
    texts: set[tuple[Callable[..., Any], str]] = field(default_factory=set)
    retries: list[ast.Call] = field(default_factory=list)

    def add(self, task: Any) -> None:  # noqa: ANN401 - a task
        """Note that *task* is run or waited for."""
        self.tasks.add(task.name)
        self.dependencies.add(getattr(task, "dependency", None))


def calls_of(function: Any) -> Calls:  # noqa: ANN401 - anything callable
    """Return what *function* calls, itself if it is a task; nothing where there is no source."""
    calls = Calls()
    if isinstance(function, Task):
        calls.add(function)
    _read(getattr(function, "run", function), calls, DEPTH)
    return calls


def _read(function: Any, calls: Calls, depth: int) -> None:  # noqa: ANN401 - as above
    function = inspect.unwrap(getattr(function, "__func__", function))
    # A built-in; or the source is not there, or is a part of a statement.
    with suppress(OSError, TypeError, ValueError, SyntaxError):
        (parsed,) = ast.parse(textwrap.dedent(inspect.getsource(function))).body
        seen = inspect.getclosurevars(function)
        body = _Body(function, {**seen.globals, **seen.nonlocals}, calls, depth)
        for one in getattr(parsed, "body", [parsed]):  # not the decorators: they run once
            body.visit(one)


class _Body(ast.NodeVisitor):
    """Reads the body of a function whose names stand for *names*."""

    def __init__(
        self, function: FunctionType, names: dict[str, Any], calls: Calls, depth: int
    ) -> None:
        self._function, self._names, self._calls, self._depth = function, names, calls, depth
        self._assigned: dict[str, ast.expr] = {}

    def visit_Assign(self, node: ast.Assign) -> None:
        """Note what a name stands for."""
        self._assigned[ast.unparse(node.targets[0])] = node.value
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        """Note what is called."""
        self.generic_visit(node)
        called, first = self._resolve(node.func), node.args[0] if node.args else None
        text = first.value if isinstance(first, ast.Constant) else None
        if isinstance(called, Task):
            self._calls.add(called)
        elif isinstance(called, FunctionType):
            self._calls.texts.add((called, str(text)))
            if self._depth and _package(called) == _package(self._function):
                _read(called, self._calls, self._depth - 1)
        elif isinstance(node.func, ast.Attribute):
            self._note_method(node, node.func.value, node.func.attr, text)

    def _note_method(self, node: ast.Call, owner: ast.expr, name: str, text: object) -> None:
        known = self._resolve(owner)
        if name == "retry" and (isinstance(known, Task) or ast.unparse(owner) == "self"):
            self._calls.retries.append(node)
        elif name == "pipeline" and isinstance(text, str):
            self._calls.dependencies.add(text)
        elif name.startswith("call") and isinstance(known, Pipeline):
            self._calls.dependencies.add(known.dependency.name)
        elif name == "apply" or name in AWAITING:
            for task in self._tasks_in(self._assigned.get(ast.unparse(owner), owner)):
                self._calls.add(task)

    def _tasks_in(self, node: ast.expr) -> Iterator[Any]:
        """Yield the tasks that stand in *node*, also as parts of a fan-out."""
        for value in map(self._resolve, ast.walk(node)):
            if isinstance(value, FanOut):
                yield from (one.signature.type for one in value.parts.values())
            elif isinstance(value, Task):
                yield value

    def _resolve(self, node: ast.AST) -> Any:  # noqa: ANN401 - whatever it is
        """Return what *node* names, None if that shows only when it runs."""
        with suppress(Exception):  # by a proxy of whatever kind, which stands for nothing yet
            owner = self._resolve(node.value) if isinstance(node, ast.Attribute) else None
            if isinstance(owner, ModuleType) and isinstance(node, ast.Attribute):
                return getattr(owner, node.attr, None)
            value = self._names.get(node.id) if isinstance(node, ast.Name) else None
            return value if value.__class__ else None
        return None


def _package(function: Any) -> str:  # noqa: ANN401 - as above
    return str(function.__module__).partition(".")[0]
