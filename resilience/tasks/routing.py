"""What the routing of an app must know of its bulkheads."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from celery import Celery
from kombu import Connection

from resilience.broker import SafeConnection
from resilience.broker.priorities import without_priorities
from resilience.broker.quorum import as_quorum
from resilience.broker.transports import on_rabbitmq
from resilience.compat import consume_from_these_only
from resilience.dependency import Dependency
from resilience.errors import ConfigurationError

Route = Callable[..., Mapping[str, str] | None]


def ask_last(app: Celery[Any], route: Route) -> None:
    """Ask *route* for the queue of a task when none of the app's own routes names one.

    A route may give other options only, a priority for one: they are kept, and *route* adds the
    queue. That is so whenever and however the app sets `task_routes`.
    """
    amqp: Any = app.amqp
    base: Any = type(amqp)

    def routes(self: Any) -> list[Any]:  # noqa: ANN401 - whatever AMQP class the app uses
        return [*base.routes.fget(self), route]

    def make(self: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as Celery's
        return _completing(base.Router(self, *args, **kwargs), app, route)

    amqp.__class__ = type(base.__name__, (base,), {"routes": property(routes), "Router": make})
    if "router" in vars(amqp):
        amqp.router = amqp.Router()


def _completing(router: Any, app: Celery[Any], route: Route) -> Any:  # noqa: ANN401 - any router
    """Let *router* take the queue from *route* when it finds options without a destination."""
    look_up = router.lookup_route

    def complete(
        name: str,
        args: Any = None,  # noqa: ANN401 - as Celery's
        kwargs: Any = None,  # noqa: ANN401 - as Celery's
        options: Any = None,  # noqa: ANN401 - as Celery's
        task_type: Any = None,  # noqa: ANN401 - as Celery's
    ) -> Any:  # noqa: ANN401 - as Celery's
        found = look_up(name, args, kwargs, options, task_type)
        if isinstance(found, str) or found is None or _has_destination(app, found):
            return found
        return {**found, **(route(name, args, kwargs, options, task=task_type) or {})}

    router.lookup_route = complete
    return router


def _has_destination(app: Celery[Any], route: Mapping[str, Any]) -> bool:
    """Tell whether *route* says where a job goes, as Celery reads it.

    To a direct exchange, which is the default one unless the app says otherwise, Celery publishes
    by the name of the queue, and heeds no routing key.
    """
    if route.get("queue") or route.get("exchange"):
        return True
    return bool(route.get("routing_key")) and app.conf.task_default_exchange_type != "direct"


def know_queues(app: Celery[Any], names: Iterable[str]) -> None:
    """Let *app* know queues of these *names*, also if it creates no missing ones.

    On RabbitMQ they are quorum queues, and known from the start: Celery's way to limit what a
    worker takes depends on whether there are any. One that `task_queues` defines stays as it is,
    and a worker that is told no queues consumes from those of `task_queues` only.
    """
    amqp: Any = app.amqp
    base: Any = type(amqp)
    names = list(names)

    class Knowing(base):  # type: ignore[misc] # whatever AMQP class the app uses
        queues_cls = without_priorities(base.queues_cls)

        def Queues(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401, N802 - Celery's
            return _complete(super().Queues(*args, **kwargs), names, quorum=on_rabbitmq(app))

        def Router(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401, N802 - Celery's
            """Complete the queues, as the broker may have been set since they were made."""
            _complete(self.queues, names, quorum=on_rabbitmq(app))
            return super().Router(*args, **kwargs)

        def TaskConsumer(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401, N802 - Celery's
            """Complete the queues before a worker declares them, for the same reason."""
            _complete(self.queues, names, quorum=on_rabbitmq(app))
            return super().TaskConsumer(*args, **kwargs)

    Knowing.__name__ = base.__name__
    amqp.__class__ = Knowing
    if "queues" in vars(amqp):
        queues = amqp.queues
        queues.__class__ = without_priorities(type(queues))
        _complete(queues, names, quorum=on_rabbitmq(app))


def _complete(queues: Any, names: Iterable[str], *, quorum: bool) -> Any:  # noqa: ANN401 - any class of queues
    """Let *queues* have all *names*; what the app defined itself stays as it is."""
    if "defined" not in vars(queues):
        queues.defined = frozenset(queues)
        consume_from_these_only(queues)
    defined = queues.defined
    for name in names:
        if quorum and name not in defined:
            _add_quorum(queues, name)
        elif not queues.create_missing and name not in queues:
            queues.add(queues.new_missing(name))
    return queues


def _add_quorum(queues: Any, name: str) -> None:  # noqa: ANN401 - as above
    """Let the queue *name* be a quorum queue, also if it was made before the broker was known."""
    made = as_quorum(queues.new_missing(name))
    if name not in queues:
        queues.add(made)
    elif not queues[name].queue_arguments:
        queues[name].queue_arguments = made.queue_arguments


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


def check_default_queue(app: Celery[Any], dependencies: Mapping[str, Dependency]) -> None:
    """Check that no dependency shares its queue with jobs of none.

    Raises:
        ConfigurationError: The queue of one is also the default queue of *app*.
    """
    taken = app.conf.task_default_queue
    for dependency in dependencies.values():
        if taken in dependency.queues:
            msg = (
                f"dependency {dependency.name!r} would share the queue {taken!r} with the "
                "app's default queue; give the dependency another one: "
                f'Dependency("{dependency.name}", queue="…")'
            )
            raise ConfigurationError(msg)
