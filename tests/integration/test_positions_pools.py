"""The session of a job ends with the job, also where threads and greenlets are used again."""

from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery

from resilience.settings import Settings
from resilience.testing.plugin import running_valkey
from resilience.testing.stack import run_worker
from tests.brokers import running_broker
from tests.integration.apps.positions import QUEUES, make_app
from tests.integration.apps.positions_stage import APP_PATH, SECONDS, close_app

NOWHERE = "postgresql+psycopg://nobody@127.0.0.1:1/none"


@pytest.fixture(scope="module", params=["prefork", "threads", "gevent", "solo"])
def app(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Celery[Any]]:
    """The client's app of a worker that runs one job at a time; no database is there."""
    with running_valkey(tmp_path_factory) as server, running_broker(tmp_path_factory) as broker:
        env = {
            "CELERY_BROKER_URL": broker.url,
            "CELERY_RESULT_BACKEND": server.url,
            "RESILIENCE_STORE_URL": server.url,
            "PRIMARY_URL": NOWHERE,
            "REPLICA_URL": NOWHERE,
        }
        settings = Settings(store_url=server.url)
        made = make_app(
            NOWHERE,
            NOWHERE,
            settings=settings,
            broker=broker.url,
            backend=server.url,
            set_as_current=False,
        )
        pool = request.param
        with run_worker(APP_PATH, queues=QUEUES, concurrency=1, pool=pool, env=env) as worker:
            try:
                yield made
            finally:
                worker.kill()
                close_app(made)


@pytest.mark.parametrize(
    ("kind", "how"),
    [
        ("plain", "return"),
        ("plain", "fail"),
        ("resilient", "return"),
        ("resilient", "fail"),
        ("cut", "hang"),
    ],
)
def test_session_ends_with_its_job(app: Celery[Any], kind: str, how: str) -> None:
    """What a job pinned, the next one on the same thread does not find, however the first ended."""
    result = app.tasks[f"{kind}.pin"].delay(how)
    result.get(timeout=SECONDS, propagate=False)
    for name in ("plain.around", "resilient.around"):
        assert app.tasks[name].delay().get(timeout=SECONDS) == {"using": None}
