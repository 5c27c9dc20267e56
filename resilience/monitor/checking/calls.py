"""What the body of a function calls, as far as its source shows it."""

import ast
import inspect
import textwrap
from contextlib import suppress
from dataclasses import dataclass, field
from types import FunctionType, ModuleType
from typing import Any, Final

from celery import Task

from resilience.pipeline import Pipeline
from resilience.tasks import FanOut

DEPTH: Final = 3
"""How many calls deep the functions of one package are followed."""
AWAITING: Final = frozenset({"aget", "apply", "get", "join", "join_native", "wait"})


@dataclass(frozen=True, slots=True)
class Calls:
    """What a function does before it returns.

    Attributes:
        tasks: Names of tasks that it runs, or whose results it waits for.
        dependencies: Those of the tasks, and of pipelines that it calls.
        texts: Functions of its package, with the literal text that it hands each as first argument.
        retries: Its calls of `self.retry`.
    """

    tasks: set[str] = field(default_factory=set)
    dependencies: set[object] = field(default_factory=set)
    texts: set[tuple[object, object]] = field(default_factory=set)
    retries: list[ast.Call] = field(default_factory=list)


def calls_of(function: Any) -> Calls:  # noqa: ANN401 - anything callable
    """Return what *function* calls, itself if it is a task; nothing where there is no source."""
    calls = Calls()
    _note(function, calls)
    _read(getattr(function, "run", function), calls, DEPTH)
    return calls


def _note(called: Any, calls: Calls) -> None:  # noqa: ANN401 - whatever is called, or waited for
    if isinstance(called, FanOut):
        for part in called.parts.values():
            _note(part.signature.type, calls)
    elif isinstance(called, Pipeline):
        calls.dependencies.add(called.dependency.name)
    elif isinstance(called, Task):
        calls.tasks.add(str(called.name))
        calls.dependencies.add(getattr(called, "dependency", None))


def _read(function: Any, calls: Calls, depth: int) -> None:  # noqa: ANN401 - as above
    function = inspect.unwrap(getattr(function, "__func__", function))
    # A built-in; or the source is not there, or is a part of a statement.
    with suppress(OSError, TypeError, ValueError, SyntaxError):
        (parsed,) = ast.parse(textwrap.dedent(inspect.getsource(function))).body
        seen = inspect.getclosurevars(function)
        body = _Body(function, {**seen.globals, **seen.nonlocals}, calls, depth)
        for one in getattr(parsed, "body", [parsed]):  # not the decorators: they run once
            body.visit(one)


@dataclass(frozen=True)
class _Body(ast.NodeVisitor):
    """Reads the body of a function whose names stand for *names*."""

    function: FunctionType
    names: dict[str, Any]
    calls: Calls
    depth: int
    assigned: dict[str, ast.expr] = field(default_factory=dict)

    def visit_Assign(self, node: ast.Assign) -> None:
        """Note what a name stands for."""
        self.assigned[ast.unparse(node.targets[0])] = node.value
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        """Note what is called."""
        self.generic_visit(node)
        called, first = self._resolve(node.func), node.args[0] if node.args else None
        text = first.value if isinstance(first, ast.Constant) else None
        _note(called, self.calls)
        if isinstance(called, FunctionType) and _package(called) == _package(self.function):
            self.calls.texts.add((called, text))
            if self.depth:
                _read(called, self.calls, self.depth - 1)
        elif isinstance(node.func, ast.Attribute):
            owner, name = node.func.value, node.func.attr
            known = self._resolve(owner)
            if name == "retry" and (isinstance(known, Task) or ast.unparse(owner) == "self"):
                self.calls.retries.append(node)
            elif name == "pipeline":
                self.calls.dependencies.add(text)
            elif name in AWAITING or isinstance(known, Pipeline):
                for inner in ast.walk(self.assigned.get(ast.unparse(owner), owner)):
                    _note(self._resolve(inner), self.calls)

    def _resolve(self, node: ast.AST) -> Any:  # noqa: ANN401 - whatever it is
        """Return what *node* names, None if that shows only when it runs."""
        value = None
        with suppress(Exception):  # by a proxy of whatever kind, which stands for nothing yet
            if isinstance(node, ast.Name):
                value = self.names.get(node.id)
            elif isinstance(node, ast.Attribute):
                owner = self._resolve(node.value)
                value = getattr(owner, node.attr, None) if isinstance(owner, ModuleType) else None
            return value if value.__class__ else None
        return None


def _package(function: FunctionType) -> str:
    return str(function.__module__).partition(".")[0]
