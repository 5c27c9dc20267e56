"""Functions with a simpler one in their place while a feature is shed."""

import functools
import inspect
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, cast

from celery._state import (  # type: ignore[attr-defined] # missing in the stubs
    _get_active_apps,
    get_current_app,
)

from resilience.errors import ConfigurationError, FeatureShedError
from resilience.events import AnswerDegraded, announce
from resilience.flags import Flags
from resilience.tasks.resilience import Resilience

P = ParamSpec("P")
R = TypeVar("R")


def degradable(
    feature: str, *, otherwise: Callable[P, R]
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Let *otherwise* answer in place of the decorated function while *feature* is shed.

    Both get the same arguments. A coroutine function stays one; *otherwise* then may be either.
    Each answer of *otherwise* is announced as `AnswerDegraded`. The feature is the current Celery
    app's, or that of the adopted app that declares it.

    Args:
        feature: Name of a declared feature.
        otherwise: A function that does without the feature.

    Raises:
        ConfigurationError: *otherwise* cannot be called, or is a coroutine function in place of a
            plain one.
    """
    if not callable(otherwise):
        msg = f"degradable {feature!r}: otherwise must be a function, got {otherwise!r}"
        raise ConfigurationError(msg)

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        if inspect.iscoroutinefunction(function):
            return cast("Callable[P, R]", _degradable_async(feature, function, otherwise))
        if inspect.iscoroutinefunction(otherwise):
            msg = (
                f"degradable {feature!r}: {otherwise!r} is a coroutine function and "
                f"{function!r} is not; nobody would await it"
            )
            raise ConfigurationError(msg)
        find = _Finder(feature)

        @functools.wraps(function)
        def chosen(*args: P.args, **kwargs: P.kwargs) -> R:
            adopted = find()
            if adopted is None or adopted.flags.enabled(feature):
                return function(*args, **kwargs)
            value = otherwise(*args, **kwargs)
            _announce(adopted, feature, function)
            return value

        return chosen

    return decorate


def _degradable_async(feature: str, function: Callable[..., Any], otherwise: Any) -> Any:  # noqa: ANN401 - any
    find = _Finder(feature)

    @functools.wraps(function)
    async def chosen(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as the function's
        adopted = find()
        if adopted is None or adopted.flags.enabled(feature):
            return await function(*args, **kwargs)
        value = otherwise(*args, **kwargs)
        if inspect.isawaitable(value):
            value = await value
        _announce(adopted, feature, function)
        return value

    return chosen


class _Finder:
    """Finds the app whose feature it is; remembers it as long as the current app is the same."""

    def __init__(self, feature: str) -> None:
        self._feature = feature
        self._current: object = None
        self._found: Resilience | None = None

    def __call__(self) -> Resilience | None:
        current = get_current_app()
        if current is not self._current or self._found is None:
            self._found, self._current = self._look(current), current
        return self._found

    def _look(self, current: object) -> Resilience | None:
        """Return whose feature it is; in a thread, Celery's current app may be none of ours."""
        adopted = [
            one
            for app in (current, *_get_active_apps())
            if isinstance(one := getattr(app, "resilience", None), Resilience)
        ]
        declaring = [one for one in adopted if self._feature in one.flags.features]
        return next(iter(declaring or adopted), None)


def _announce(adopted: Resilience, feature: str, function: Callable[..., Any]) -> None:
    flags: Flags = adopted.flags
    if feature not in flags.features:
        return
    decision = flags.decide(feature)
    declared = flags.features[feature]
    error = FeatureShedError(feature, declared.level, decision.rule, str(decision.source))
    announce(
        AnswerDegraded(
            call=getattr(function, "__qualname__", repr(function)),
            dependency=feature,
            level=declared.level,
            reason=type(error).__name__,
            error=str(error),
            source="otherwise",
            age=None,
        ),
        adopted.listeners,
    )
