"""Functions with a simpler one in their place while a feature is shed."""

import functools
import inspect
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, cast

from celery._state import (  # type: ignore[attr-defined] # missing in the stubs
    _get_active_apps,
    get_current_app,
)

from resilience.errors import ConfigurationError
from resilience.events import AnswerDegraded, announce
from resilience.flags.trial import ON
from resilience.levels import Level
from resilience.outcome import Outcome
from resilience.tasks.carried import note
from resilience.tasks.resilience import Resilience

P = ParamSpec("P")
R = TypeVar("R")
SOURCE = "otherwise"


def degradable(
    feature: str, *, otherwise: Callable[P, R]
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Let *otherwise* answer in place of the decorated function while *feature* is shed.

    Both get the same arguments. A coroutine function stays one; *otherwise* then may be either.
    Each answer of *otherwise* is announced as `AnswerDegraded`. The body of a `ResilientTask` with
    fallbacks that got one returns an `Outcome` of the feature's level.

    The feature is that of the current Celery app, or else of any adopted app that declares it. If
    none does, the decorated function is called.

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
        if isinstance(function, classmethod | staticmethod):
            msg = f"degradable {feature!r}: put it below @classmethod and @staticmethod"
            raise ConfigurationError(msg)
        if inspect.iscoroutinefunction(function):
            return cast("Callable[P, R]", _degradable_async(feature, function, otherwise))
        if inspect.iscoroutinefunction(otherwise):
            msg = (
                f"degradable {feature!r}: {otherwise!r} is a coroutine function and "
                f"{function!r} is not; nobody would await it"
            )
            raise ConfigurationError(msg)
        find = _Finder(feature)
        # The work of a generator is done after the call, where no trial can measure it.
        measurable = not any(
            test(function) for test in (inspect.isgeneratorfunction, inspect.isasyncgenfunction)
        )

        @functools.wraps(function)
        def chosen(*args: P.args, **kwargs: P.kwargs) -> R:
            adopted = find()
            if (
                adopted is None
                or (draw := adopted.flags.draw(feature, measurable=measurable)) is ON
            ):
                return function(*args, **kwargs)
            with draw:
                if not draw.shed:
                    return draw.judge(function(*args, **kwargs))
                value = draw.judge(otherwise(*args, **kwargs))
            _report(adopted, feature, function, trial=draw.trial)
            return value

        return chosen

    return decorate


def _degradable_async(feature: str, function: Callable[..., Any], otherwise: Any) -> Any:  # noqa: ANN401 - any
    find = _Finder(feature)

    @functools.wraps(function)
    async def chosen(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as the function's
        adopted = find()
        if adopted is None:
            return await function(*args, **kwargs)
        await adopted.flags.freshen_async()
        draw = adopted.flags.draw(feature)
        if draw is ON:
            return await function(*args, **kwargs)
        async with draw:
            if not draw.shed:
                return draw.judge(await function(*args, **kwargs))
            value = otherwise(*args, **kwargs)
            if inspect.isawaitable(value):
                value = await value
            draw.judge(value)
        _report(adopted, feature, function, trial=draw.trial)
        return value

    return chosen


class _Finder:
    """Finds the app that declares the feature; remembers it for the current app."""

    def __init__(self, feature: str) -> None:
        self._feature = feature
        # One attribute, as threads may have different current apps.
        self._known: tuple[object, Resilience | None] = (None, None)

    def __call__(self) -> Resilience | None:
        """Return that app, the current one first; None: none declares it."""
        current = get_current_app()
        known, found = self._known
        if current is not known or found is None:
            found = self._look(current)
            self._known = current, found
        return found

    def _look(self, current: object) -> Resilience | None:
        """Look at all apps: in a thread, Celery's current one may be none of ours."""
        adopted = [
            one
            for app in (current, *_get_active_apps())
            if isinstance(one := getattr(app, "resilience", None), Resilience)
        ]
        for one in adopted:
            if self._feature in one.features:
                return one
        if adopted:
            adopted[0].flags.enabled(self._feature)  # announces that nobody declares it
        return None


def _report(
    adopted: Resilience, feature: str, function: Callable[..., Any], *, trial: bool
) -> None:
    """Announce an answer of *otherwise*, and note it for the task whose body asked."""
    error = adopted.flags.shed_error(feature, trial=trial)
    level, reason = Level(error.level), type(error).__name__
    note(Outcome(value=None, level=level, reason=reason, source=SOURCE, dependency=feature))
    announce(
        AnswerDegraded(
            call=getattr(function, "__qualname__", repr(function)),
            dependency=feature,
            level=level,
            reason=reason,
            error=str(error),
            source=SOURCE,
            age=None,
            feature=feature,
        ),
        adopted.listeners,
    )
