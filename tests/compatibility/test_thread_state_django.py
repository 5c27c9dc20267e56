"""Django on the threads pool: a job's database connection is closed with it, as in plain Celery."""

import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing
from typing import Any

import pytest
from celery.result import AsyncResult

from resilience.testing.plugin import running_valkey
from resilience.testing.stack import run_worker
from resilience.testing.waiting import wait_until
from tests.brokers import running_broker
from tests.compatibility.apps.django_shop.celery import app

APP = "tests.compatibility.apps.django_shop.celery"
SECONDS = 120
JOBS = 12


@pytest.fixture(scope="module", autouse=True)
def _worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A worker of the project with four threads."""
    database = tmp_path_factory.mktemp("django") / "shop.sqlite3"
    with closing(sqlite3.connect(database)) as made:
        made.execute("CREATE TABLE shop (id INTEGER)")
    with ExitStack() as running:
        server = running.enter_context(running_valkey(tmp_path_factory))
        broker = running.enter_context(running_broker(tmp_path_factory))
        app.conf.update(broker_url=broker.url, result_backend=server.url)
        running.callback(app.close)
        env = {
            "CELERY_BROKER_URL": broker.url,
            "CELERY_RESULT_BACKEND": server.url,
            "DJANGO_SETTINGS_MODULE": "tests.compatibility.apps.django_shop.settings",
            "DJANGO_DATABASE": str(database),
        }
        queues = ["celery", "alpha"]
        running.enter_context(
            run_worker(APP, queues=queues, pool="threads", concurrency=4, env=env)
        )
        yield


def publish(task: str, **options: Any) -> AsyncResult[Any]:  # noqa: ANN401 - as Celery's
    """Publish a task of the app."""
    return app.tasks[f"{APP}.{task}"].apply_async(**options)


def open_connections() -> int:
    """Return how many connections to the database the worker has."""
    found: int = publish("open_connections").get(timeout=SECONDS)
    return found


@pytest.mark.parametrize(
    ("task", "options"),
    [
        pytest.param("plain", {}, id="plain Celery"),
        pytest.param("guarded", {}, id="timeout of the dependency"),
        pytest.param("limited", {"budget": 20.0}, id="budget of the job"),
        pytest.param("shared_out", {}, id="share of a budget"),
    ],
)
def test_no_job_leaves_its_database_connection_behind(task: str, options: dict[str, Any]) -> None:
    """Every job begins without a connection, and none stays open once they have ended."""
    jobs = [publish(task, **options) for _ in range(JOBS)]

    assert [job.get(timeout=SECONDS) for job in jobs] == [False] * JOBS
    wait_until(lambda: not open_connections(), SECONDS, "all connections are closed")
