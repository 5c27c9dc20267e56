"""Publishing by name in an adopted app: as its task would publish itself."""

import contextvars
import inspect
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import celery.app.base
from celery import Celery
from celery.utils.imports import symbol_by_name

from resilience.tasks.admission import Admission, with_lane
from resilience.tasks.publisher import publishing
from resilience.tasks.router import BulkheadRouter, called_by

STAND_INS: Final = "resilience.tasks.remote:StandIns"
"""By its path, and when it is needed: it is made of the classes that need this module."""
_quiet = contextvars.ContextVar("_quiet", default=False)


def send_as_tasks_do(app: Celery[Any], router: BulkheadRouter, admission: Admission) -> None:
    """Let `app.send_task` hold to the bulkhead of the task that it publishes by name."""
    logging.getLogger(celery.app.base.__name__).addFilter(_needed)
    app.send_task = Sender(app, router, admission)  # type: ignore[method-assign]


class Sender:
    """Publishes by name; in the place of the app's `send_task`.

    A job of a dependency is published as its task would: in its lane, if there is room, and with
    the outbox behind it if it is fire-and-forget. Celery publishes all others, and what a task
    publishes itself, as ever.
    """

    def __init__(self, app: Celery[Any], router: BulkheadRouter, admission: Admission) -> None:
        """Take the place of whatever sends for *app* now."""
        self._app = app
        self._before: Callable[..., Any] | None = vars(app).get("send_task")
        self._router = router
        self._admission = admission
        self._stand_ins: Any = None

    def __call__(
        self,
        name: str,
        args: Any = None,  # noqa: ANN401 - as Celery's
        kwargs: Any = None,  # noqa: ANN401 - as Celery's
        *positional: Any,  # noqa: ANN401 - as Celery's
        **options: Any,  # noqa: ANN401 - as Celery's
    ) -> Any:  # noqa: ANN401 - as Celery's
        """Publish the task *name*, as `Celery.send_task`.

        Raises:
            BulkheadFullError: Too many jobs of its dependency wait.
        """
        if positional:
            _self, _name, _args, _kwargs, *names = inspect.signature(Celery.send_task).parameters
            options = by_name(names, positional, options)
        with publishing(self._app):
            return self._send(name, args, kwargs, options)

    def _send(self, name: str, args: Any, kwargs: Any, options: dict[str, Any]) -> Any:  # noqa: ANN401 - Celery's
        if options.get("task_type") is None:
            stand_in = self._stand_in(name)
            if stand_in is not None:
                return stand_in.publish(args, kwargs, options)
        inner = called_by(name, kwargs)
        if inner is not None:
            self._admit(inner, options)
        # Looked up again: instrumentation replaces the method of the class at any time.
        send = self._before or type(self._app).send_task.__get__(self._app)
        if not (options.get("countdown") or options.get("eta")):
            return send(name, args, kwargs, **options)
        token = _quiet.set(True)
        try:
            return send(name, args, kwargs, **options)
        finally:
            _quiet.reset(token)

    def _stand_in(self, name: str) -> Any:  # noqa: ANN401 - a StandIn
        """Return what publishes the task *name* as the task itself would, None if nothing does."""
        owner = self._router.owner(name, None)
        if owner is None or self._app.conf.task_always_eager:
            return None
        if self._stand_ins is None:
            self._stand_ins = symbol_by_name(STAND_INS)(self._app)
        return self._stand_ins.of(name, owner, self._router.task(name))

    def _admit(self, inner: str, options: dict[str, Any]) -> None:
        """Ask for room for a job that calls the task *inner*, and put it into its lane.

        Raises:
            BulkheadFullError: The bulkhead has no room.
        """
        owner = self._router.owner(inner, None)
        if owner is None:
            return
        lane = options.pop("lane", None)
        if lane is not None:
            options["headers"] = with_lane(options.get("headers"), lane, inner)
        full = self._admission.ask(inner, owner.dependency.name, owner.lane, options)
        if full is not None:
            raise full


def _needed(record: logging.LogRecord) -> bool:
    """Tell whether a warning of Celery's is one for the users of an adopted app.

    As its queues on RabbitMQ are quorum queues, Celery would say with every countdown that it may
    block a worker. Its workers make room for such jobs.
    """
    return not (_quiet.get() and str(record.msg).startswith("Direct exchanges are not supported"))


def by_name(
    names: Sequence[str], positional: Sequence[Any], options: Mapping[str, Any]
) -> dict[str, Any]:
    """Return *options*, and those that were given by their place among *names*.

    Raises:
        TypeError: There are too many of them, or one is also given by its name.
    """
    if len(positional) > len(names):
        msg = f"takes at most {len(names)} options by their place, got {len(positional)}"
        raise TypeError(msg)
    placed = dict(zip(names, positional, strict=False))
    if twice := sorted(placed.keys() & options.keys()):
        msg = f"got {', '.join(twice)} by place and by name"
        raise TypeError(msg)
    return {**options, **placed}
