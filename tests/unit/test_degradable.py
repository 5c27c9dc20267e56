"""Functions with a simpler one in their place: whose feature it is, and mistakes."""

import asyncio
import threading
from typing import Any

import pytest
from celery import Celery

from resilience import (
    ConfigurationError,
    Dependency,
    Feature,
    FireAndForgetTask,
    Level,
    Resilience,
    ResilientTask,
    Settings,
    degradable,
)


def adopt(feature: str, *, default: bool, current: bool = False) -> Celery[Any]:
    """Return an app without a store that declares *feature*."""
    app: Celery[Any] = Celery(feature, broker="memory://", set_as_current=current)
    Resilience(
        app,
        dependencies=[Dependency("search")],
        features=[Feature(feature, level=Level.REDUCED, default=default)],
        settings=Settings(),
    )
    return app


def test_decorated_function_is_called_while_no_app_declares_the_feature() -> None:
    """A feature of nobody sheds nothing."""
    assert degradable("nobodys", otherwise=lambda: "less")(lambda: "more")() == "more"


def test_app_is_found_in_a_thread_and_among_others() -> None:
    """In a thread, where Celery knows of no current app, the app that declares it decides."""
    apps = adopt("threaded", default=False), adopt("other", default=True)
    function = degradable("threaded", otherwise=lambda: "less")(lambda: "more")
    found: list[str] = []

    thread = threading.Thread(target=lambda: found.append(function()))
    thread.start()
    thread.join()

    assert (found, function()) == (["less"], "less")
    assert all(apps)


def test_coroutine_function_stays_one() -> None:
    """Its stand-in may be a plain function or another one."""
    app = adopt("async", default=False)

    async def more() -> str:
        return "more"

    async def less() -> str:
        return "less"

    for otherwise in (less, lambda: "less"):
        function = degradable("async", otherwise=otherwise)(more)  # type: ignore[arg-type] # both are promised
        assert asyncio.run(function()) == "less"
    assert app


@pytest.mark.parametrize("base", [ResilientTask, FireAndForgetTask])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"feature": "rankin", "dependency": "search"}, "unknown feature 'rankin'; did you mean"),
        ({"featur": "ranking", "dependency": "search"}, "did you mean 'feature'"),
        ({"feature": "ranking"}, "declares a feature but no dependency"),
        ({"feature": 7, "dependency": "search"}, "feature must be the name of one, got 7"),
    ],
)
def test_wrong_declaration_is_an_error_at_once(
    base: type[ResilientTask], options: dict[str, Any], message: str
) -> None:
    """What can never work says so when the task is made."""
    app = adopt("ranking", default=True)

    def body() -> None:
        """Do nothing."""

    with pytest.raises(ConfigurationError, match=message):
        assert app.task(base=base, name="t", shared=False, **options)(body).name


def test_pipeline_of_an_unknown_feature_is_an_error() -> None:
    """The same for pipelines."""
    app = adopt("ranking", default=True)
    with pytest.raises(ConfigurationError, match="unknown feature 'rank'"):
        Resilience.of(app).pipeline("search", feature="rank")
