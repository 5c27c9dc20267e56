"""Functions and methods that get a check ahead of each call, until an exit stack ends."""

import functools
import inspect
import pkgutil
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from types import FunctionType, ModuleType
from typing import Any

from resilience.errors import ConfigurationError

Check = Callable[..., None]
"""Gets the arguments of a call, and raises what the call is to fail with."""
MISSING = object()


@dataclass(frozen=True, slots=True)
class Place:
    """Where a callable is looked up: an attribute of a module, a class or an object."""

    owner: Any
    attribute: str


def find_place(target: str | Callable[..., Any]) -> Place:
    """Return where callers look *target* up; of a class, where its objects are made.

    Args:
        target: A dotted path, such as `shop.clients.Bank.charge`, or the callable itself.

    Raises:
        ConfigurationError: There is nothing of that path, it cannot be called, or a callable has no
            name in a module or class.
    """
    if not isinstance(target, str):
        _must_be_named(target, repr(target))
        owner = None if inspect.isclass(target) else getattr(target, "__self__", None)
        if owner is not None:
            return Place(owner, target.__name__)
        path = full_name(target)
        place = None if "<" in path else find_place(path)
        if place is None or not _is_at(place, target):
            msg = f"{target!r} is not what a module or class calls by its name; give a dotted path"
            raise ConfigurationError(msg)
        return place
    head, _, attribute = target.rpartition(".")
    try:
        owner = pkgutil.resolve_name(head)
        value = getattr(owner, attribute)
    except (ImportError, AttributeError, ValueError) as error:
        msg = f"{target!r} is no dotted path of a callable: {error}"
        raise ConfigurationError(msg) from error
    _must_be_named(value, f"{target!r}, {value!r},")
    return Place(value, "__init__") if inspect.isclass(value) else Place(owner, attribute)


def put_check(stack: ExitStack, place: Place, check: Check) -> None:
    """Call *check* ahead of what is at *place*, with the same arguments, until *stack* ends.

    A function of a module is checked in every module that has imported it by name. What others
    put in its place meanwhile is left alone.

    Raises:
        ConfigurationError: What is written in C cannot be replaced.
    """
    found = _value(place)
    if isinstance(found, staticmethod | classmethod):
        _set(stack, place, type(found)(_checked(found.__func__, check)))
        return
    checked = _checked(found, check)
    _set(stack, place, checked)
    if isinstance(place.owner, ModuleType) and isinstance(found, FunctionType):
        for module in list(sys.modules.values()):
            for name, value in list(getattr(module, "__dict__", {}).items()):
                if value is found:
                    _set(stack, Place(module, name), checked)


def full_name(target: str | Callable[..., Any]) -> str:
    """Return the dotted path of *target*; of what has no name, its class in angle brackets."""
    if isinstance(target, str):
        return target
    name = getattr(target, "__qualname__", f"<{type(target).__name__}>")
    return f"{getattr(target, '__module__', None) or '<none>'}.{name}"


def _must_be_named(value: object, text: str) -> None:
    # A task, for example, is more than its call: a function in its place could not be published.
    if not (inspect.isroutine(value) or inspect.isclass(value)):
        msg = f"{text} is no function, method or class; name one that it calls"
        raise ConfigurationError(msg)


def _is_at(place: Place, target: Callable[..., Any]) -> bool:
    """Tell whether *target* is at *place*, maybe with a check ahead of it already."""
    if inspect.isclass(target):
        return place.owner is target
    return inspect.unwrap(getattr(place.owner, place.attribute)) is inspect.unwrap(target)


def _value(place: Place) -> Any:  # noqa: ANN401 - any callable
    """Return what is at *place*; of a class as it stands there: it may be a static method."""
    if inspect.isclass(place.owner):
        return inspect.getattr_static(place.owner, place.attribute)
    return getattr(place.owner, place.attribute)


def _set(stack: ExitStack, place: Place, new: object) -> None:
    owner, attribute = place.owner, place.attribute
    old = vars(owner).get(attribute, MISSING)
    try:
        setattr(owner, attribute, new)
    except (AttributeError, TypeError) as error:
        msg = f"{attribute!r} of {owner!r} cannot fail: {error}; name what calls it"
        raise ConfigurationError(msg) from error

    def restore() -> None:
        if vars(owner).get(attribute) is not new:
            return
        if old is MISSING:
            delattr(owner, attribute)
        else:
            setattr(owner, attribute, old)

    stack.callback(restore)


def _checked(function: Callable[..., Any], check: Check) -> Callable[..., Any]:
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def call_async(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as the function's
            check(*args, **kwargs)
            return await function(*args, **kwargs)

        return call_async

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as the function's
        check(*args, **kwargs)
        return function(*args, **kwargs)

    return call
