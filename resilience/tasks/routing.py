"""The queue of a dependency, for tasks to which the app's own routes give none."""

from collections.abc import Callable, Mapping
from typing import Any

from celery import Celery

Route = Callable[..., Mapping[str, str] | None]


def ask_last(app: Celery[Any], route: Route) -> None:
    """Ask *route*, as one of `task_routes`, when none of the app's own routes knows a task.

    It stays the last one whenever and however the app sets `task_routes`.
    """
    amqp: Any = app.amqp
    base: Any = type(amqp)

    def routes(self: Any) -> list[Any]:  # noqa: ANN401 - whatever AMQP class the app uses
        return [*base.routes.fget(self), route]

    amqp.__class__ = type(base.__name__, (base,), {"routes": property(routes)})
    if "router" in vars(amqp):
        amqp.router = amqp.Router()
