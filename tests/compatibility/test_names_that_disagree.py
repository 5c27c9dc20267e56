"""Tasks that are known by name and declared: both must say the same."""

from typing import Any

import pytest
from celery import Celery

from resilience import (
    ConfigurationError,
    Dependency,
    FireAndForgetTask,
    Resilience,
    ResilientTask,
    Settings,
    TaskPattern,
)


def body() -> None:
    """Do nothing."""


@pytest.mark.parametrize(
    ("options", "named", "said"),
    [
        pytest.param(
            {"base": ResilientTask, "dependency": "users"},
            ["app.*"],
            r"task app\.x has dependency='users'.*dependency 'payments' names",
            id="dependency",
        ),
        pytest.param({}, ["app.x"], r"task app\.x has dependency=None.*'payments'", id="plain"),
        pytest.param(
            {"base": FireAndForgetTask, "dependency": "payments"},
            ["app.x"],
            r"task app\.x has fire_and_forget=True.*'payments'.*fire_and_forget=False",
            id="fire-and-forget",
        ),
        pytest.param(
            {"base": ResilientTask, "dependency": "payments", "lane": "critical"},
            ["app.?"],
            r"task app\.x has lane='critical'.*'payments'.*lane='normal'",
            id="lane",
        ),
        pytest.param(
            {"base": ResilientTask, "dependency": "payments"},
            [TaskPattern("app.x", fire_and_forget=True)],
            r"task app\.x has fire_and_forget=False.*'payments'.*fire_and_forget=True",
            id="no-fire-and-forget",
        ),
    ],
)
@pytest.mark.parametrize("when", ["before", "after", "finalized"])
def test_task_that_is_not_what_its_name_says_is_an_error(
    options: dict[str, Any], named: list[str | TaskPattern], said: str, when: str
) -> None:
    """Where both are known, they must agree: the message names the task and the dependency."""
    app: Celery[Any] = Celery("shop", set_as_current=False, broker="redis://127.0.0.1:1/0")

    def build() -> None:
        if when != "after":
            app.task(name="app.x", shared=False, **options)(body)
        if when == "finalized":
            app.finalize()
        adopt(app, named)
        if when == "after":
            app.task(name="app.x", shared=False, **options)(body)
        app.finalize()

    with pytest.raises(ConfigurationError, match=said):
        build()


def adopt(app: Celery[Any], named: list[str | TaskPattern]) -> None:
    """Adopt *app*, with *named* tasks of payments."""
    Resilience(
        app,
        dependencies=[Dependency("payments", tasks=named), Dependency("users")],
        settings=Settings(store_url="redis://127.0.0.1:1/0"),
    )
