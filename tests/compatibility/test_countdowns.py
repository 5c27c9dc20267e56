"""Jobs with a countdown take no other job's place, on RabbitMQ as on Redis."""

import importlib
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple
from uuid import uuid4

import pytest
from celery import Celery

from resilience.testing.rabbitmq import RabbitProcess
from resilience.testing.stack import run_worker
from resilience.testing.valkey import ValkeyProcess
from resilience.testing.waiting import wait_until
from tests.brokers import Rabbit
from tests.compatibility.apps.countdowns import ADOPTED, CONCURRENCY, QUEUES

APP_PATH = "tests.compatibility.apps.countdowns"
SECONDS = 120.0
FOR_EVER = 3600
SOON = 2
JOBS = 30
"""So many more than a worker takes at once that room must be made for them several times."""

pytestmark = pytest.mark.filterwarnings("default:Call to deprecated setex:DeprecationWarning")


class Stage(NamedTuple):
    """A broker, a place for results, and the app of this process."""

    app: Celery[Any]
    broker: Rabbit
    valkey: ValkeyProcess
    env: dict[str, str]

    def run(self, *queues: str, pool: str = "prefork") -> Any:  # noqa: ANN401 - a context manager
        """Run a worker of *queues*."""
        return run_worker(APP_PATH, queues=queues, concurrency=CONCURRENCY, pool=pool, env=self.env)

    def publish(self, task: str, *args: object, **options: object) -> Any:  # noqa: ANN401 - a result
        """Publish a job."""
        return self.app.tasks[task].apply_async(args, **options)


@pytest.fixture(scope="module", params=[ADOPTED, pytest.param("plain", marks=pytest.mark.long)])
def kind(request: pytest.FixtureRequest) -> str:
    """What the app is: adopted, or the same app as plain Celery runs it."""
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def queued(kind: str, rabbitmq: RabbitProcess) -> Rabbit:
    """The queues of an app of this kind."""
    assert kind
    return Rabbit(rabbitmq)


@pytest.fixture
def stage(kind: str, queued: Rabbit, valkey: ValkeyProcess) -> Iterator[Stage]:
    """An app of this kind, and no jobs."""
    queued.start()
    queued.empty()
    env = {
        "APP_KIND": kind,
        "CELERY_BROKER_URL": queued.url,
        "CELERY_RESULT_BACKEND": valkey.url,
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in env.items():
            patch.setenv(name, value)
        sys.modules.pop(APP_PATH, None)
        module = importlib.import_module(APP_PATH)
        module.app.conf.update(broker_url=queued.url, result_backend=valkey.url)
        yield Stage(module.app, queued, valkey, env)
        module.app.close()
        sys.modules.pop(APP_PATH, None)


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_job_behind_countdowns_runs_at_once(
    stage: Stage, pool: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A plain job does not wait for those before it that are not due, in any queue of a worker."""
    tasks = {f"{APP_PATH}.echo": ""}
    if stage.env["APP_KIND"] == ADOPTED:
        tasks |= {f"{one}.echo": one for one in QUEUES[1:]}
    for task in tasks:
        for value in range(JOBS):
            stage.publish(task, value, countdown=FOR_EVER)

    with stage.run(*QUEUES, pool=pool) as worker:
        assert [stage.publish(task, 7).get(timeout=SECONDS) for task in tasks] == [7] * len(tasks)
        log = worker.log
        worker.kill()
    assert "direct exchange" not in log + caplog.text


@pytest.mark.parametrize("kind", [ADOPTED], indirect=True, scope="module")
def test_bulkhead_does_not_stop_for_countdowns(stage: Stage) -> None:
    """The worker of one dependency makes room for them, too."""
    for value in range(JOBS):
        stage.publish("alpha.echo", value, countdown=FOR_EVER)

    with stage.run("alpha") as worker:
        assert stage.publish("alpha.echo", 7).get(timeout=SECONDS) == 7
        worker.kill()


@pytest.mark.parametrize("kind", [ADOPTED], indirect=True, scope="module")
def test_worker_takes_no_more_than_it_runs_when_the_countdowns_are_over(stage: Stage) -> None:
    """Soon afterwards it reserves as many jobs as before: others may take the rest."""
    with stage.run(QUEUES[0]) as worker:
        due = [stage.publish(f"{APP_PATH}.echo", value, countdown=SOON) for value in range(JOBS)]
        assert [one.get(timeout=SECONDS) for one in due] == list(range(JOBS))
        what = "the worker holds what it runs"
        wait_until(lambda: held_of_many(stage) == CONCURRENCY, SECONDS, what)
        worker.kill()


def held_of_many(stage: Stage) -> int:
    """Return how many of many jobs the worker holds while it is busy."""
    key, desk = uuid4().hex, stage.valkey.client()
    jobs = [stage.publish(f"{APP_PATH}.wait", key) for _ in range(JOBS)]
    wait_until(lambda: desk.llen(f"{key}:began") == CONCURRENCY, SECONDS, "it is busy")
    held = stage.broker.held()
    desk.set(f"{key}:go", 1)
    for job in jobs:
        job.get(timeout=SECONDS)
    return held
