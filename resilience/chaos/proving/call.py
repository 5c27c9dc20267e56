"""A call to be proved, and what its author promises of it."""

import asyncio
import inspect
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any

from celery import Task
from celery.utils.imports import symbol_by_name

from resilience.errors import ConfigurationError
from resilience.levels import Level
from resilience.tasks import FanOut, ResilientTask


@dataclass(frozen=True, slots=True)
class Call:
    """A call to be made under every fault.

    Attributes:
        target: A task, which is published and whose result is awaited; a `FanOut`; or a function of
            any kind, such as what a web endpoint calls. A coroutine is awaited.
        args: Of a task or a function, by position.
        kwargs: Of a task or a function, by name.
        budget: Seconds in which the answer must come, more than 0; a fan-out needs it. None: a task
            may take as long as `resilience check` predicts, a function as long as it likes.
        worst: Worst level that the author accepts of an answer while a dependency fails that is not
            `required`. None: what the declarations allow; of a function, whose parts nobody knows,
            STATIC.
        required: Dependencies without which the call may fail.
        silent: Dependencies whose failure changes no answer, such as an audit log.
        effects: Returns how often the call has had its effect so far, such as the number of charges
            that the provider has on record. One call must have the effect at most once.

    Raises:
        ConfigurationError: A value is out of range, or cannot be called.
    """

    target: Any
    args: Sequence[Any] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    _: KW_ONLY
    budget: float | None = None
    worst: Level | None = None
    required: Collection[str] = ()
    silent: Collection[str] = ()
    effects: Callable[[], int] | None = None

    def __post_init__(self) -> None:
        """Check what was said."""
        whole = isinstance(self.target, FanOut)
        _require(
            whole or callable(self.target),
            f"a call needs a task, a FanOut or a function, got {self.target!r}",
        )
        _require(
            self.budget is None or 0 < self.budget < math.inf,
            f"{self!r}: budget must be more than 0 seconds, got {self.budget!r}",
        )
        _require(
            not whole or self.budget is not None,
            f"{self!r}: a fan-out has a deadline; write Call(fan_out, budget=2.0)",
        )
        _require(
            not whole or not (self.args or self.kwargs),
            f"{self!r}: the parts of a fan-out have their arguments already; leave out args",
        )
        for name, value in {"required": self.required, "silent": self.silent}.items():
            _require(
                not isinstance(value, str),
                f"{self!r}: {name} is a list of dependencies, got {value!r}",
            )

    @property
    def task(self) -> Task[Any, Any] | None:
        """The task that is called, if it is one."""
        # A shared task is a proxy, whose class is the task's.
        return self.target if isinstance(self.target, Task) else None

    def make(self, *, seconds: float) -> Any:  # noqa: ANN401 - whatever is called
        """Make the call, and return its answer; a job that nobody can wait for answers None.

        Args:
            seconds: How long to wait for a task's result.

        Raises:
            Exception: Whatever the call raises; celery's TimeoutError after *seconds*.
        """
        if isinstance(self.target, FanOut):
            return self.target.apply_async(budget=self.budget or seconds).get()
        task = self.task
        if task is None:
            answer = self.target(*self.args, **self.kwargs)
            return asyncio.run(_awaited(answer)) if inspect.isawaitable(answer) else answer
        options: dict[str, Any] = {}
        if self.budget is not None and isinstance(task, ResilientTask):
            options["budget"] = self.budget
        result = task.apply_async(tuple(self.args), dict(self.kwargs), **options)
        return None if task.ignore_result else result.get(timeout=seconds)


def named(path: str) -> Any:  # noqa: ANN401 - whatever the user named
    """Return what `module:name` stands for.

    Raises:
        ConfigurationError: There is no such thing.
    """
    try:
        return symbol_by_name(path)
    except (ImportError, AttributeError, ValueError) as error:
        msg = f"cannot import {path!r}: {error}; write module:name of something that exists"
        raise ConfigurationError(msg) from error


def _require(condition: object, sentence: str) -> None:
    if not condition:
        raise ConfigurationError(sentence)


async def _awaited(answer: Any) -> Any:  # noqa: ANN401 - anything that can be awaited
    return await answer
