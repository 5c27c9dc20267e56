"""What a task class may declare, checked when the class is made."""

import difflib
import functools
import inspect
from collections.abc import Callable
from importlib import import_module
from typing import Any, Final, Literal, get_args

from celery import Task

from resilience.errors import ConfigurationError
from resilience.fallback import Chain, FunctionStep, StaticStep, check_chain
from resilience.tasks.admission import check_lane
from resilience.tasks.models import with_models
from resilience.tasks.once import check_key
from resilience.tasks.serialization import must_encode

DataConsistency = Literal["always", "sticky", "delayed"]
"""Where the reads of a job go; see docs/consistency.md."""
CONSISTENCIES: Final[tuple[DataConsistency, ...]] = get_args(DataConsistency)
OURS = (
    "bugs",
    "data_consistency",
    "dependency",
    "fallbacks",
    "feature",
    "idempotency_key",
    "idempotency_seconds",
    "lane",
)
LIKENESS = 0.81
"""From here on a name counts as a misspelling of ours; `dependencies` does, `fallback_on` not."""

TaskClass = type[Task[Any, Any]]


def check_declaration(cls: Any, *, within: TaskClass) -> Chain:  # noqa: ANN401 - any subclass of *within*
    """Return the fallback chain of the task class *cls*, a subclass of *within*.

    Raises:
        ConfigurationError: Something in the class can never work; the message names it.
    """
    where = f"task {cls.name or cls.__qualname__}"
    _check_spelling(cls, where)
    check_calls(cls, within=within)
    if cls.dependency is not None and not (isinstance(cls.dependency, str) and cls.dependency):
        msg = f"{where}: dependency must be the name of one, got {cls.dependency!r}"
        raise ConfigurationError(msg)
    check_lane(cls.lane, where)
    _check_bugs(cls.bugs, where)
    _check_consistency(cls.data_consistency, where)
    chain = check_chain(cls.fallbacks, where=where)
    if inspect.iscoroutinefunction(inspect.unwrap(cls.run)):
        msg = f"{where} is a coroutine function, which Celery does not await; use a plain one"
        raise ConfigurationError(msg)
    # A base class leaves it to those made from it to name their dependency.
    if chain and cls.dependency is None and not vars(cls).get("abstract"):
        msg = f"{where} declares fallbacks but no dependency; name the one its body calls"
        raise ConfigurationError(msg)
    if cls.feature is not None and not (isinstance(cls.feature, str) and cls.feature):
        msg = f"{where}: feature must be the name of one, got {cls.feature!r}"
        raise ConfigurationError(msg)
    if cls.feature and cls.dependency is None and not vars(cls).get("abstract"):
        msg = f"{where} declares a feature but no dependency; name the one its body calls"
        raise ConfigurationError(msg)
    if not vars(cls).get("abstract"):
        _check_kept(cls, where)
    for step in with_models(cls, chain):
        if isinstance(step, StaticStep):
            must_encode(step.value, where=f"{where}, fallback.static")
        elif isinstance(step, FunctionStep):
            _check_function(step.function, cls, f"{where}, fallback {step.source}")
    return chain


def _check_kept(cls: Any, where: str) -> None:  # noqa: ANN401 - any task class
    if cls.idempotency_key is not None:
        check_key(cls.idempotency_key, _parameters(cls), where)
    if cls.idempotency_key is not None or cls._kept:
        # Now, before a worker forks: a job would pay for the import out of its budget.
        import_module("resilience.ledger.ledger")


def _check_bugs(bugs: Any, where: str) -> None:  # noqa: ANN401 - anything may be tried
    kinds = bugs if isinstance(bugs, tuple) else (bugs,)
    if bugs is not None and not all(
        isinstance(kind, type) and issubclass(kind, Exception) for kind in kinds
    ):
        msg = f"{where}: bugs must be a tuple of exception classes, got {bugs!r}"
        raise ConfigurationError(msg)
    if bugs is not None and not isinstance(bugs, tuple):
        msg = f"{where}: bugs must be a tuple, got {bugs!r}; write bugs=({bugs.__name__},)"
        raise ConfigurationError(msg)


def _check_consistency(named: object, where: str) -> None:
    if named not in (None, *CONSISTENCIES):
        known = ", ".join(CONSISTENCIES)
        msg = f"{where}: data_consistency must be one of {known}, got {named!r}"
        raise ConfigurationError(msg)


def _check_spelling(cls: TaskClass, where: str) -> None:
    for name, value in vars(cls).items():
        if name in OURS or callable(value) or isinstance(value, (staticmethod, classmethod)):
            continue
        if meant := _meant(name):
            msg = f"{where} declares {name!r}, which says nothing; did you mean {meant!r}?"
            raise ConfigurationError(msg)


@functools.cache  # each task that Celery makes of a function has the same dozen of names
def _meant(name: str) -> str | None:
    return next(iter(difflib.get_close_matches(name, OURS, n=1, cutoff=LIKENESS)), None)


def check_calls(cls: Any, *, within: TaskClass) -> None:  # noqa: ANN401 - a subclass of *within*
    """Check that every `__call__` of *cls* in front of that of *within* hands on to the next one.

    A wrapper that others have put around one (Sentry's SDK, `task_annotations`) counts as that one.

    Raises:
        ConfigurationError: One does not.
    """
    ours = inspect.unwrap(within.__call__)
    for base in cls.__mro__[: cls.__mro__.index(within)]:
        found = inspect.unwrap(vars(base).get("__call__", ours))
        code = getattr(found, "__code__", None)
        if found is not ours and code is not None and "super" not in code.co_names:
            msg = (
                f"task {cls.name or cls.__qualname__}: {base.__qualname__}.__call__ runs the body "
                "past its breaker, timeout and fallbacks; let it return "
                'super().__call__(*args, **kwargs), or annotate "@__call__" with a decorator'
            )
            raise ConfigurationError(msg)


def _check_function(function: Callable[..., Any], cls: Any, where: str) -> None:  # noqa: ANN401 - a task class
    if inspect.iscoroutinefunction(inspect.unwrap(function)):
        msg = f"{where} is a coroutine function, which a task does not await; use a plain one"
        raise ConfigurationError(msg)
    if vars(cls).get("abstract"):
        return
    try:
        signature = inspect.signature(function)
    except ValueError:  # a built-in that does not tell
        return
    needed = _required(cls)
    positional = [one.name for one in needed if one.kind is not one.KEYWORD_ONLY]
    keywords = dict.fromkeys(one.name for one in needed if one.kind is one.KEYWORD_ONLY)
    if _fits(signature, positional, keywords):
        return
    by_name = [one.name for one in needed if one.kind is not one.POSITIONAL_ONLY]
    if len(by_name) == len(needed) and _fits(signature, [], dict.fromkeys(by_name)):
        return
    names = ", ".join(one.name for one in needed) or "none"
    msg = f"{where}{signature} cannot take the arguments that the task requires: {names}"
    raise ConfigurationError(msg)


def _parameters(cls: Any) -> dict[str, inspect.Parameter]:  # noqa: ANN401 - a task class
    """Return what a call of the task's body can give, by name."""
    found = dict(inspect.signature(cls.run).parameters)
    if not isinstance(inspect.getattr_static(cls, "run"), (staticmethod, classmethod)):
        found.pop(next(iter(found)))
    return found


def _required(cls: Any) -> list[inspect.Parameter]:  # noqa: ANN401 - a task class
    """Return what every call of the task's body must give."""
    found = list(_parameters(cls).values())
    several = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [one for one in found if one.kind not in several and one.default is one.empty]


def _fits(signature: inspect.Signature, args: list[str], kwargs: dict[str, Any]) -> bool:
    try:
        signature.bind(*args, **kwargs)
    except TypeError:
        return False
    return True
