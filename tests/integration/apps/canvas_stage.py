"""A worker of the app in canvas.py, and the app of a client."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from celery import Celery

from resilience.settings import Settings
from resilience.testing.plugin import running_valkey
from resilience.testing.stack import run_worker
from tests.brokers import running_broker
from tests.integration.apps.canvas import QUEUES, make_app

SECONDS = 120.0


@contextmanager
def running_app(
    paths: pytest.TempPathFactory, *, adopted: bool, pool: str = "prefork"
) -> Iterator[Celery[Any]]:
    """Run a worker of the app in apps/canvas.py; yield an app of a client."""
    module = "tests.integration.apps." + ("canvas_adopted" if adopted else "canvas_bare")
    with running_valkey(paths) as server, running_broker(paths) as broker:
        env = {"CELERY_BROKER_URL": broker.url, "CELERY_RESULT_BACKEND": server.url}
        app = make_app(
            adopted=adopted,
            settings=Settings(),
            broker=broker.url,
            backend=server.url,
            set_as_current=False,
        )
        with run_worker(module, queues=QUEUES, pool=pool, env=env) as worker:
            try:
                yield app
            finally:
                gc.collect()  # results that nobody asked for end their subscriptions at the server
                worker.kill()
                app.close()


def sig(app: Celery[Any], task: str, *args: object, **kwargs: object) -> Any:  # noqa: ANN401
    """Return the signature of a task of *app*."""
    return app.tasks[task].s(*args, **kwargs)


def value_of(canvas: Any) -> Any:  # noqa: ANN401 - whatever it returns
    """Run *canvas* and return its value."""
    return canvas.apply_async().get(timeout=SECONDS)
