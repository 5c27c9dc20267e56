"""What a task class may not declare: it is said when the class is made, not in the outage."""

from collections.abc import Callable
from typing import Any

import pytest
from celery import Celery, Task

from resilience import ConfigurationError, fallback
from resilience.tasks import ResilientTask
from tests.integration.apps.fresh import adopt, echo, new_app


def assert_refused(declare: Callable[[], object], *named: str) -> None:
    """Check that *declare* is a configuration error that names every word of *named*."""
    with pytest.raises(ConfigurationError) as error:
        declare()
    for word in named:
        assert word in str(error.value)


def make(bases: tuple[type, ...] = (ResilientTask,), **attributes: object) -> Any:  # noqa: ANN401 - a class
    """Make a task class."""
    return type("Declared", bases, {"dependency": "users", **attributes})


def two(first: int, *, second: int) -> int:
    """Return the sum."""
    return first + second


async def coroutine(first: int, *, second: int) -> int:
    """Return the sum, later."""
    return first + second


class PastUs(Task):  # type: ignore[type-arg] # as users write it
    """A base class as applications have it, to push a context around the body."""

    abstract = True

    def __call__(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - what the body returns
        """Run the body."""
        return self.run(*args, **kwargs)


class Through(ResilientTask):
    """The same, done well."""

    abstract = True

    def __call__(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - what the body returns
        """Run the body through the pipeline."""
        return super().__call__(*args, **kwargs)


@pytest.mark.parametrize(
    ("attributes", "named"),
    [
        ({"fallbacks": fallback.static(1)}, "must be a list of steps"),
        ({"fallbacks": None}, "got None"),
        ({"fallbacks": "static"}, "got 'static'"),
        ({"dependency": ["users"]}, "got ['users']"),
        ({"dependency": ""}, "got ''"),
        ({"fallback": [fallback.static(1)]}, "did you mean 'fallbacks'"),
        ({"fall_backs": [fallback.static(1)]}, "did you mean 'fallbacks'"),
        ({"dependancy": "users"}, "did you mean 'dependency'"),
        ({"dependencies": "users"}, "did you mean 'dependency'"),
        ({"fallbacks": [fallback.static(object())]}, "cannot be sent as JSON"),
        ({"fallbacks": [fallback.call(coroutine)]}, "fallback coroutine is a coroutine function"),
    ],
)
def test_task_is_refused_when_it_can_never_work(attributes: dict[str, Any], named: str) -> None:
    """The class statement fails, and says what of which task."""
    assert_refused(lambda: make(**attributes), "task Declared", named)


@pytest.mark.parametrize(
    "fitting",
    [
        lambda *_, **__: 0,
        lambda a, b: a + b,
        lambda second, first, x=1: first + second + x,
        lambda **named: named,
        max,
    ],
    ids=["anything", "in-order", "by-name", "only-by-name", "built-in"],
)
def test_fallback_takes_what_the_task_requires(fitting: Callable[..., Any]) -> None:
    """In order or by name: one way in which the task may be called is enough."""
    body = staticmethod(lambda first, second, third=0: first + second + third)

    assert make(run=body, fallbacks=[fallback.call(fitting)])


def test_fallback_takes_keywords_that_the_task_requires() -> None:
    """The task itself could be its fallback."""
    assert make(run=staticmethod(two), fallbacks=[fallback.call(two)])


@pytest.mark.parametrize(
    "unfit", [lambda: 0, lambda one: one, lambda a, b, c: a + b + c], ids=["none", "one", "three"]
)
def test_fallback_that_cannot_be_called_is_refused(unfit: Callable[..., Any]) -> None:
    """A TypeError in the outage would be one too late; arguments with defaults do not count."""

    def run(self: object, first: int, second: int, third: int = 0) -> None:
        """Take two or three."""

    assert_refused(lambda: make(run=run, fallbacks=[fallback.call(unfit)]), "first, second")


def test_base_class_may_have_fallbacks_for_all_its_tasks() -> None:
    """Abstract itself, it needs no dependency; what is made from it does."""
    base = make(dependency=None, abstract=True, fallbacks=[fallback.call(two)])

    assert make((base,), run=staticmethod(two)).fallbacks == base.fallbacks
    assert_refused(lambda: make((base,), dependency=None, run=staticmethod(two)), "no dependency")


def test_body_is_never_run_past_the_pipeline() -> None:
    """A `__call__` of another class in front of ours must hand on, or is refused."""
    assert_refused(lambda: make((PastUs, ResilientTask)), "PastUs.__call__", "super().__call__")

    app: Celery[Any] = new_app()
    adopt(app)
    through = app.task(
        name="through", base=Through, shared=False, dependency="users", fallbacks=()
    )(echo)
    assert through(1) == 1
