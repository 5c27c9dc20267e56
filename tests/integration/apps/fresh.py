"""Apps that connect to nothing, to be adopted in one way or another."""

from typing import Any

from celery import Celery

from resilience.dependency import Dependency
from resilience.settings import Settings
from resilience.tasks import Resilience, ResilientTask

URL = "redis://127.0.0.1:1/0"
USERS, PAYMENTS = Dependency("users"), Dependency("payments", queue="money")


def echo(value: object = None) -> object:
    """Return *value*."""
    return value


def new_app(**options: Any) -> Celery[Any]:  # noqa: ANN401 - as Celery's
    """Return an app that knows the task `get_user` of users, and `free` of nobody."""
    app: Celery[Any] = Celery("shop", set_as_current=False, task_cls=ResilientTask, **options)
    app.conf.setdefault("broker_url", URL)
    app.task(name="get_user", shared=False, dependency="users")(echo)
    app.task(name="free", shared=False)(echo)
    return app


def adopt(app: Celery[Any], *dependencies: Dependency) -> Resilience:
    """Adopt *app* with *dependencies*, by default users and payments."""
    settings = Settings(store_url=URL)
    return Resilience(app, dependencies=dependencies or (USERS, PAYMENTS), settings=settings)


def nothing(app: Celery[Any]) -> None:
    """Leave the app as it is."""


def read(app: Celery[Any]) -> None:
    """Read a setting, which makes Celery read all of them."""
    assert app.conf.task_acks_late is not None


def queue_of(app: Celery[Any], task: str, **options: Any) -> str:  # noqa: ANN401 - of apply_async
    """Return the name of the queue that *app* would publish *task* to."""
    name: str = app.amqp.router.route(options, task)["queue"].name
    return name
