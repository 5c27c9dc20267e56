"""What the routing of an app must know of its bulkheads."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from celery import Celery
from kombu import Connection

from resilience.broker import SafeConnection
from resilience.broker.quorum import as_quorum, on_rabbitmq

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


def know_queues(app: Celery[Any], names: Iterable[str]) -> None:
    """Let *app* know queues of these *names*, also if it creates no missing ones.

    On RabbitMQ they are quorum queues, and known from the start: Celery's way to limit what a
    worker takes depends on whether there are any. One that `task_queues` defines stays as it is,
    and a worker that is told no queues consumes from those of `task_queues` only.
    """
    amqp: Any = app.amqp
    base: Any = type(amqp)
    names = list(names)

    def complete(queues: Any) -> Any:  # noqa: ANN401 - whatever class of queues the app uses
        quorum = on_rabbitmq(app)
        if quorum or not queues.create_missing:
            for name in names:
                if name not in queues:
                    made = queues.new_missing(name)
                    queues.add(as_quorum(made) if quorum else made)
        return queues

    def make(self: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as Celery's
        return complete(base.Queues(self, *args, **kwargs))

    amqp.__class__ = type(base.__name__, (base,), {"Queues": make})
    if "queues" in vars(amqp):
        complete(amqp.queues)


def connect_safely(app: Celery[Any]) -> None:
    """Let *app* connect to its broker in a way that loses no message."""
    amqp: Any = app.amqp
    base: Any = type(amqp)
    if base.Connection is Connection:
        amqp.__class__ = type(base.__name__, (base,), {"Connection": SafeConnection})


def check_when_final(app: Celery[Any], check: Callable[[], None]) -> None:
    """Call *check* when Celery has made the app's tasks; what it raises, the app's user sees.

    A receiver of `on_after_finalize` could only have it swallowed.
    """
    finalize = app.finalize

    def finalize_and_check(*args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - as Celery's
        finalize(*args, **kwargs)
        check()

    app.finalize = finalize_and_check  # type: ignore[method-assign]
