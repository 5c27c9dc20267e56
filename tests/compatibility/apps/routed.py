"""One app twice, adopted and as plain Celery, to see where its jobs run; workers import `app`.

Every task returns the queue and the priority of the message that its worker runs.
"""

import os
from typing import Any

from celery import Celery, Task

from resilience import Dependency, Resilience, ResilientTask, Settings

ENV = os.environ  # noqa: TID251 - an entry point
BULKHEAD = "payments"
LANES = ("", ".critical", ".sheddable")
OTHER = "vip"


def bulkhead(kind: str) -> str:
    """Return the queue of payments."""
    return f"{kind}.{BULKHEAD}"


def queues(kind: str) -> list[str]:
    """Return what the worker consumes from."""
    return [kind, f"{kind}.{OTHER}", *(f"{bulkhead(kind)}{lane}" for lane in LANES)]


def make_app(kind: str, *, broker: str, backend: str, **conf: Any) -> Celery[Any]:  # noqa: ANN401
    """Return the app of *kind*, `adopted` or `plain`, with more settings."""
    app: Celery[Any] = Celery(kind, broker=broker, backend=backend, set_as_current=False)
    app.conf.update(task_default_queue=kind, task_create_missing_queues=True, **conf)
    if kind == "plain":
        app.conf.task_routes = app.conf.task_routes or {"app.payments.*": bulkhead(kind)}
    else:
        Resilience(
            app,
            dependencies=[Dependency(BULKHEAD, queue=bulkhead(kind)), Dependency("users")],
            settings=Settings(store_url=backend, store_timeout_seconds=0.5),
        )
    base: Any = {"base": Task} if kind == "plain" else {"base": ResilientTask}
    owned = {} if kind == "plain" else {"dependency": BULKHEAD}

    def where() -> list[Any]:
        info = app.current_worker_task.request.delivery_info
        return [info["routing_key"], info.get("priority")]

    def charge(*_: object) -> list[Any]:
        return where()

    def urgent(*_: object) -> list[Any]:
        return where()

    def free(*_: object) -> list[Any]:
        return where()

    def swap(self: Any, how: str) -> Any:  # noqa: ANN401
        """Let something else answer in this task's place."""
        one = app.tasks["app.payments.charge"]
        return self.replace(one.map([1, 2]) if how == "map" else one.s())

    app.task(name="app.payments.charge", shared=False, **base, **owned)(charge)
    app.task(name="app.free", shared=False, **base)(free)
    app.task(name="app.swap", shared=False, bind=True, **base)(swap)
    if kind == "adopted":
        lane = {"lane": "critical"}
        app.task(name="app.payments.urgent", shared=False, **base, **owned, **lane)(urgent)
    return app


if "ROUTED_KIND" in ENV:
    app = make_app(
        ENV["ROUTED_KIND"], broker=ENV["CELERY_BROKER_URL"], backend=ENV["CELERY_RESULT_BACKEND"]
    )
