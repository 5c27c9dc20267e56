"""The Celery app of a Django project whose workers run threads."""

import time
from typing import Any

import psutil
from celery import Celery, Task

from resilience import Dependency, Resilience, ResilientTask, TimeoutBudget
from resilience.events import log_event
from tests.compatibility.apps.django_shop.settings import DATABASE_PATH

app = Celery("django_shop")
dependencies = [Dependency("alpha", timeout=5.0, breaker=None)]
Resilience(app, dependencies=dependencies, listeners=[log_event])


def query() -> bool:
    """Ask the database; return whether a connection was open already, which an earlier job left."""
    from django.db import connection  # noqa: PLC0415 - Django is set up by the worker

    foreign = connection.connection is not None
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    time.sleep(0.01)  # noqa: TID251 - so that all threads of the pool are in use
    return foreign


@app.task(shared=False)
def plain() -> bool:
    """Query, in a task of Celery's class for Django."""
    return query()


@app.task(shared=False, base=ResilientTask, dependency="alpha")
def guarded() -> bool:
    """Query, under the timeout of a dependency."""
    return query()


@app.task(shared=False, base=ResilientTask)
def limited() -> bool:
    """Query, under the budget of the job alone."""
    return query()


@app.task(shared=False)
def shared_out() -> bool:
    """Query under a share of a budget."""
    found: bool = TimeoutBudget(10).run(query, seconds=5)
    return found


@app.task(bind=True, shared=False)
def open_connections(self: Task[Any, Any]) -> int:
    """Return how many connections to the database the process has."""
    assert self.request.id
    return sum(one.path == DATABASE_PATH for one in psutil.Process().open_files())
