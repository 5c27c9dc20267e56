"""Two apps of one process, each with a task of a dependency that only it declares."""

from typing import Any

import pytest
from celery import Celery, shared_task

from resilience import ConfigurationError, Dependency, Resilience, ResilientTask, Settings

URL = "redis://127.0.0.1:1/0"


def adopted(name: str, dependency: str) -> Celery[Any]:
    """Return an app with one dependency."""
    app: Celery[Any] = Celery(name, broker=URL)
    Resilience(app, dependencies=[Dependency(dependency)], settings=Settings(store_url=URL))
    return app


one = adopted("one", "users")


@one.task(base=ResilientTask, dependency="users", name="of_one")
def of_one() -> None:
    """Be shared with all apps."""


@shared_task(base=ResilientTask, dependency="search", name="of_two")
def of_two() -> None:
    """Be shared with all apps."""


two = adopted("two", "search")


def check(app: Celery[Any], task: str, queue: str, other: str) -> None:
    """Check that *app* publishes *task* to *queue*, and refuses the *other* app's task."""
    assert app.amqp.router.route({}, task)["queue"].name == queue
    with pytest.raises(ConfigurationError, match=f"task {other} names the unknown dependency"):
        app.send_task(other)


if __name__ == "__main__":
    check(one, "of_one", "users", "of_two")
    check(two, "of_two", "search", "of_one")
