"""The steps that a fallback chain is made of."""

import copy
import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from resilience.errors import (
    ConfigurationError,
    NoStoredAnswerError,
    as_bug,
    mark_wrong_call,
)
from resilience.levels import Level
from resilience.outcome import Outcome
from resilience.store.answers import Answer, Answers


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """The call that failed, as a fallback step sees it.

    Attributes:
        name: The task or function that was called.
        args: Its positional arguments.
        kwargs: Its keyword arguments.
        answers: Where good answers are remembered.
        stored: Key of this call's last full answer there; empty if no step asks for it.
    """

    name: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    answers: Answers
    stored: str


class Entry:
    """What `fallbacks` lists: a step, or how often the chain is drilled."""

    __slots__ = ()


class Step(Entry, ABC):
    """One stop of a fallback chain.

    Attributes:
        level: How good its answer is.
        source: What it is called in outcomes, events and errors.
        remember_seconds: How long full answers of the call must be remembered for it.
        drilled: Whether a drill asks it.
    """

    def __init__(self, level: Level, source: str) -> None:
        if level not in (Level.STALE, Level.REDUCED, Level.STATIC):
            msg = (
                f"fallback step {source}: level must be STALE, REDUCED or STATIC, got {level!r}; "
                "FULL is the call itself and FAILED is no answer"
            )
            raise ConfigurationError(msg)
        self.level = Level(level)
        self.source = source
        self.remember_seconds: float | None = None
        self.drilled = True

    def __repr__(self) -> str:
        """Return what errors call the step."""
        return f"{self.source} ({self.level.name})"

    @abstractmethod
    def answer(self, call: Call) -> Outcome[Any]:
        """Return the step's answer to *call*; any exception means it has none."""

    @abstractmethod
    async def answer_async(self, call: Call) -> Outcome[Any]:
        """Do the same without blocking the event loop."""


class _Stored(Step):
    """A step that answers from what was remembered."""

    def __init__(self, level: Level, source: str, *, max_age: float | None) -> None:
        super().__init__(level, source)
        if max_age is not None:
            _check_age(max_age, source)
        self.max_age = max_age

    @abstractmethod
    def key(self, call: Call) -> str:
        """Return where the answer to *call* is remembered."""

    def answer(self, call: Call) -> Outcome[Any]:
        return self._aged(call.answers.recall(self.key(call)))

    async def answer_async(self, call: Call) -> Outcome[Any]:
        return self._aged(await call.answers.recall_async(self.key(call)))

    def _aged(self, stored: Answer | None) -> Outcome[Any]:
        if stored is None:
            msg = "nothing is remembered"
            raise NoStoredAnswerError(msg)
        if self.max_age is not None and stored.age > self.max_age:
            msg = f"the answer is {stored.age:.0f} s old, more than {self.max_age:g} s"
            raise NoStoredAnswerError(msg)
        return Outcome(value=stored.value, level=self.level, source=self.source, age=stored.age)


def _check_age(seconds: Any, source: str) -> None:  # noqa: ANN401 - anything may be tried
    is_number = isinstance(seconds, (int, float)) and seconds is not True
    if not (is_number and math.isfinite(seconds) and seconds > 0):
        msg = f"fallback step {source}: max_age must be more than 0 seconds, got {seconds!r}"
        raise ConfigurationError(msg)


class _Stale(_Stored):
    def __init__(self, max_age: float) -> None:
        _check_age(max_age, "stale")
        super().__init__(Level.STALE, "stale", max_age=max_age)
        self.remember_seconds = max_age

    def key(self, call: Call) -> str:
        return call.stored


class _Cached(_Stored):
    def __init__(self, name: str, *, max_age: float | None, level: Level) -> None:
        if not name or not isinstance(name, str):
            msg = f"fallback step cached: the key must be the name of an answer, got {name!r}"
            raise ConfigurationError(msg)
        super().__init__(level, f"cached:{name}", max_age=max_age)
        self._name = name

    def key(self, call: Call) -> str:
        return call.answers.key(self._name)


class FunctionStep(Step):
    """A step that answers with what a function returns; made by `call`.

    Attributes:
        function: It.
    """

    def __init__(self, function: Callable[..., Any], level: Level, *, drilled: bool = True) -> None:
        name = getattr(function, "__name__", repr(function))
        if not callable(function):
            msg = f"fallback.call needs something to call, got {function!r}"
            raise ConfigurationError(msg)
        super().__init__(level, name)
        self.function = function
        self.drilled = drilled

    def answer(self, call: Call) -> Outcome[Any]:
        """Call the function, which must not be a coroutine function."""
        if inspect.iscoroutinefunction(self.function):
            msg = f"fallback {self.source} is a coroutine function; this call is synchronous"
            raise as_bug(TypeError(msg))
        try:
            value = self.function(*call.args, **call.kwargs)
        except TypeError as error:
            mark_wrong_call(error, self.function, call.args, call.kwargs)
            raise
        return self._as_outcome(value)

    async def answer_async(self, call: Call) -> Outcome[Any]:
        """Call the function and await what it returns, if it is to be awaited."""
        try:
            value = self.function(*call.args, **call.kwargs)
        except TypeError as error:
            mark_wrong_call(error, self.function, call.args, call.kwargs)
            raise
        return self._as_outcome(await value if inspect.isawaitable(value) else value)

    def _as_outcome(self, value: object) -> Outcome[Any]:
        level, age = self.level, None
        if isinstance(value, Outcome):
            level, age, value = max(level, value.level), value.age, value.value
        return Outcome(value=value, level=level, source=self.source, age=age)


class StaticStep(Step):
    """A step that answers with one value, always; made by `static`.

    Attributes:
        value: It.
    """

    def __init__(self, value: object, level: Level) -> None:
        super().__init__(level, "static")
        try:
            self.value = copy.deepcopy(value)
        except Exception as error:
            msg = f"fallback step static: {value!r} cannot be copied: {error}"
            raise ConfigurationError(msg) from error

    def answer(self, call: Call) -> Outcome[Any]:  # noqa: ARG002 - the same for every call
        """Return a copy of the value."""
        # A copy: who gets it may change it, and the next one must not see that.
        return Outcome(value=copy.deepcopy(self.value), level=self.level, source=self.source)

    async def answer_async(self, call: Call) -> Outcome[Any]:
        """Return a copy of the value."""
        return self.answer(call)


def stale(*, max_age: float) -> Step:
    """Answer with the last full answer to the same arguments (level STALE).

    Declaring it makes the pipeline remember full answers.

    Args:
        max_age: Seconds an answer may be old, more than 0.

    Raises:
        ConfigurationError: *max_age* is out of range.
    """
    return _Stale(max_age)


def cached(key: str, *, max_age: float | None = None, level: Level = Level.STATIC) -> Step:
    """Answer with what the app keeps under *key* (see `Answers.remember`).

    Args:
        key: The name it was remembered under.
        max_age: Seconds the answer may be old; None: as long as it is kept.
        level: How good such an answer is.

    Raises:
        ConfigurationError: *key* is empty, or *max_age* or *level* out of range.
    """
    return _Cached(key, max_age=max_age, level=level)


def call(function: Callable[..., Any], *, level: Level = Level.REDUCED, drill: bool = True) -> Step:
    """Answer with `function(*args, **kwargs)`, called with the failed call's arguments.

    Args:
        function: A plain function, or a coroutine function in asynchronous pipelines. An
            `Outcome` it returns is merged: the worse level counts.
        level: How good such an answer is.
        drill: Whether a drill of the chain calls it, for real; False for one with side effects.

    Raises:
        ConfigurationError: *function* cannot be called, or *level* is out of range.
    """
    return FunctionStep(function, level, drilled=drill)


def static(value: object, *, level: Level = Level.STATIC) -> Step:
    """Answer with *value*, always.

    Args:
        value: Something the result serializer can send. It is copied here and for each answer, so
            that nobody who changes one changes another.
        level: How good such an answer is.

    Raises:
        ConfigurationError: *value* cannot be copied, or *level* is out of range.
    """
    return StaticStep(value, level)
