"""What Celery 5.6 lacks of Celery 5.7, so that no other module asks for a version."""

import types
from collections.abc import Collection, Mapping
from contextvars import ContextVar
from typing import Any, Final

import celery.app.amqp
from celery import Celery, Task
from celery.app.utils import _new_key_to_old  # type: ignore[attr-defined] # missing in the stubs
from celery.concurrency import prefork
from celery.result import AsyncResult, ResultSet
from celery.utils.quorum_queues import detect_quorum_queues
from celery.worker import state
from celery.worker.request import Request
from kombu.message import Message

# A class with type parameters is `Task[Any, Any]` in the stubs of every version.
_GENERIC: Final[tuple[Any, ...]] = (Celery, Task, AsyncResult, ResultSet)
for _class in _GENERIC:
    if not hasattr(_class, "__class_getitem__"):
        _class.__class_getitem__ = classmethod(types.GenericAlias)

callback_publish: Final[ContextVar[Any]] = getattr(
    celery.app.amqp, "_callback_publish_retry", ContextVar("callback_publish", default=None)
)
"""Is set while Celery publishes what follows a job; never set by Celery 5.6."""


def scheduled_in(consumer: Any) -> Collection[Any]:  # noqa: ANN401 - Celery's
    """Return the requests that wait for their ETA in the worker of *consumer*."""
    known: Collection[Any] | None = getattr(state, "scheduled_requests", None)
    if known is not None:
        return known
    # Celery 5.6 has them in the timer only, where `inspect scheduled` finds them as well.
    firsts = (one for waiting in list(consumer.timer.schedule.queue) for one in _first(waiting))
    return [one for one in firsts if isinstance(one, Request)]


def _first(waiting: Any) -> tuple[Any, ...]:  # noqa: ANN401 - kombu's
    return tuple(waiting.entry.args or ())[:1]


def size_of(pool: Any) -> int:  # noqa: ANN401 - Celery's
    """Return how many jobs *pool* can run at once.

    On gevent Celery 5.6 would tell how many are running.
    """
    return int(pool.limit if pool.is_green else pool.num_processes)


def has_global_qos(consumer: Any) -> bool:  # noqa: ANN401 - Celery's
    """Tell whether the broker counts the prefetch of *consumer* for its channel as a whole.

    It counts for each consumer apart where there are quorum queues. Celery 5.6 keeps no note of it.
    """
    noted = getattr(consumer, "qos_global", None)
    if noted is not None:
        return bool(noted)
    app, connection = consumer.app, consumer.connection
    quorum, _ = detect_quorum_queues(app, connection.transport.driver_type)
    if quorum and app.conf.worker_detect_quorum_queues:
        return False
    return not connection.qos_semantics_matches_spec


def named_as(shipped: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return *settings* by the names, today's or those of Celery 3, that *shipped* has them by.

    Celery 5.6 looks for today's name in every layer before it looks for the old one.
    """
    return {
        name if name in shipped else _new_key_to_old(name): value
        for name, value in settings.items()
    }


def is_set(conf: Any, name: str) -> bool:  # noqa: ANN401 - Celery's settings
    """Tell whether the app sets *name* itself, with a namespace or by its old name as well.

    Celery 5.6 asks for the bare name only.
    """
    names = [name, _new_key_to_old(name)]
    if conf.prefix:
        names.append(f"{conf.prefix}{name}".upper())
    return any(conf.value_set_for(each) for each in names)


def consume_from_these_only(queues: Any) -> None:  # noqa: ANN401 - any class of queues
    """Let a worker that is told no queues consume from what *queues* now has, not from later ones.

    Celery 5.7 does so by itself; Celery 5.6 would consume from every queue that it knows.
    """
    if queues.consume_from is queues:
        queues.select(list(queues))


def acknowledge_ended(hub: Any) -> None:  # noqa: ANN401 - kombu's
    """Run the acknowledgements that wait for the event loop *hub*, and nothing else."""
    run = getattr(prefork, "_run_ready_callbacks", _run_ready_callbacks)
    run(hub)


def _run_ready_callbacks(hub: Any) -> None:  # noqa: ANN401 - as above
    for callback in hub._pop_ready():  # noqa: SLF001 - as Celery 5.7 does
        message = getattr(getattr(callback, "fun", None), "__self__", None)
        if not isinstance(message, Message):
            continue
        try:
            callback()
        except Exception as error:  # noqa: BLE001 - the others must not wait for this one
            hub.on_callback_error(callback, error)
