"""Tasks of the planted apps: no dependency is there, their bodies answer by themselves."""

from collections.abc import Callable
from typing import Any

from celery import shared_task

from resilience import ResilientTask

WAIT = 10.0


def task(
    dependency: str,
    name: str,
    body: Callable[[], object] | None = None,
    **options: Any,  # noqa: ANN401 - of a task
) -> Any:  # noqa: ANN401 - a task
    """Declare a task that answers with its name, or with what its *body* returns."""

    def run() -> object:
        return name if body is None else body()

    options.setdefault("base", ResilientTask)
    return shared_task(name=f"planted.{name}", dependency=dependency, **options)(run)
