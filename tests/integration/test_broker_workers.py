"""Workers die, or lose their broker: their jobs run on, no more often than they must."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from celery.exceptions import WorkerLostError

from resilience.ledger import State, Which
from resilience.settings import Settings
from resilience.testing.process import ProcessStartError
from resilience.testing.stack import WorkerProcess, run_worker
from resilience.testing.valkey import ValkeyProcess
from resilience.testing.waiting import wait_until
from tests.brokers import ON_RABBITMQ, Broker, running_broker
from tests.integration.apps.crash import make_app

RETURNS_MAX = 5
POISON_LOST = 3

APP = "tests.integration.apps.crash"
SECONDS = 120.0
DEADLY = RETURNS_MAX if ON_RABBITMQ else POISON_LOST
"""So many workers a job may kill. RabbitMQ counts lost connections as well."""
LONG_SECONDS = 7.0
"""More than three times as long as a worker may be silent."""

TICK_SECONDS = 4.0
STILL_SECONDS = 0.7
"""What sleeps for a job to go on sleeps a second."""


class Scene:
    """A broker that keeps what it took, another server for results, and a diary."""

    def __init__(self, broker: Broker, env: dict[str, str], app: Any, home: Path) -> None:  # noqa: ANN401 - Celery's
        self.broker, self.env, self.app = broker, env, app
        self.diary = home / "diary"

    @contextmanager
    def worker(self, pool: str = "prefork", concurrency: int = 2) -> Iterator[WorkerProcess]:
        """Run a worker."""
        with run_worker(
            APP, queues=["long", "long.retry"], pool=pool, concurrency=concurrency, env=self.env
        ) as worker:
            yield worker
            worker.kill()

    def send(self, task: str, *args: object) -> Any:  # noqa: ANN401 - Celery's
        """Publish a job that writes into the diary."""
        return self.app.tasks[task].delay(*args, str(self.diary))

    def noted(self) -> list[str]:
        """Return what the jobs wrote."""
        return self.diary.read_text().split() if self.diary.exists() else []

    def await_begun(self, number: int = 1) -> None:
        """Wait until jobs have begun so often."""
        wait_until(lambda: self.noted().count("begun") >= number, SECONDS, "it has begun")

    def assert_long_job_runs_once(self) -> None:
        """Let the worker run one, and another wait for jobs meanwhile."""
        before = len(self.noted())
        job = self.send("last", LONG_SECONDS)
        wait_until(lambda: len(self.noted()) > before, SECONDS, "it has begun")
        with self.worker(concurrency=1):
            assert job.get(timeout=SECONDS) == LONG_SECONDS
        assert self.noted()[before:] == ["begun", "done"]


@pytest.fixture
def scene(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, valkey: ValkeyProcess
) -> Iterator[Scene]:
    """Everything but workers."""
    valkey.flush()
    ledger = f"sqlite:///{tmp_path}/ledger.sqlite3"
    with running_broker(tmp_path_factory) as broker:
        env = {
            "CELERY_BROKER_URL": broker.url,
            "CELERY_RESULT_BACKEND": valkey.url,
            "RESILIENCE_LEDGER_URL": ledger,
        }
        settings = Settings(ledger_url=ledger)
        app = make_app(settings, broker=broker.url, backend=valkey.url, set_as_current=False)
        yield Scene(broker, env, app, tmp_path)
        app.resilience.ledger.close()  # type: ignore[attr-defined]
        app.close()


@pytest.mark.parametrize(
    "pool", ["prefork", pytest.param("threads", marks=pytest.mark.long), "solo"]
)
def test_long_job_runs_once(scene: Scene, pool: str) -> None:
    """Though it takes longer than a worker may be silent, and another worker waits for jobs."""
    with scene.worker(pool, 1):
        scene.assert_long_job_runs_once()


def test_job_of_a_killed_worker_runs_elsewhere(scene: Scene) -> None:
    """All that it held."""
    with scene.worker() as doomed:
        jobs = [scene.send("last", 2.0) for _ in range(2)]
        scene.await_begun(2)
        doomed.kill()
    with scene.worker():
        for job in jobs:
            assert job.get(timeout=SECONDS) == 2.0
    assert scene.noted().count("begun") == 4
    assert scene.noted().count("done") == 2


@pytest.mark.redis_broker("RabbitMQ hands over what a lost connection held, the job runs or not")
def test_running_job_runs_once_though_its_broker_is_killed(scene: Scene) -> None:
    """It goes on, is acknowledged on the new connection, and the worker takes the next one."""
    with scene.worker(), scene.worker():
        job = scene.send("last", LONG_SECONDS)
        scene.await_begun()
        scene.broker.kill()
        scene.broker.start()

        assert job.get(timeout=SECONDS) == LONG_SECONDS
        assert scene.send("last", 0.0).get(timeout=SECONDS) == 0.0
        wait_until(lambda: not scene.broker.held(), SECONDS, "all is acknowledged")
        assert scene.noted() == ["begun", "done"] * 2


@pytest.mark.redis_broker("RabbitMQ takes seconds to stop; what sleeps is the same")
def test_jobs_go_on_in_greenlets_while_the_broker_is_away(scene: Scene) -> None:
    """A greenlet that waits to connect again lets the others run.

    Then a long job runs once there, too.
    """
    with scene.worker("gevent") as worker:
        job = scene.send("tick", TICK_SECONDS)
        scene.await_begun()
        scene.broker.kill()
        wait_until(lambda: "Trying again in" in worker.log, SECONDS, "it waits")
        scene.broker.start()
        assert job.get(timeout=SECONDS) < STILL_SECONDS
        scene.assert_long_job_runs_once()


def test_job_that_kills_its_workers_is_a_dead_letter(scene: Scene) -> None:
    """After the third, or fifth: it fails for who waits for it, and others go on."""
    job = scene.send("kill")
    for number in range(1, DEADLY + 1):
        # A worker may have died of the job before anybody has read that it is ready.
        with suppress(ProcessStartError), scene.worker(concurrency=1) as worker:
            wait_until(
                lambda worker=worker: not worker.running, SECONDS, "it has killed its worker"
            )
        scene.await_begun(number)
    with scene.worker(concurrency=1):
        with pytest.raises(WorkerLostError, match=f"{DEADLY} workers died"):
            job.get(timeout=SECONDS)
        assert scene.send("last", 0.0).get(timeout=SECONDS) == 0.0
        wait_until(lambda: not scene.broker.held(), SECONDS, "all is acknowledged")

    (letter,) = scene.app.resilience.ledger.letters.find(Which(), limit=10)
    assert (letter.id, letter.reason) == (job.id, "poison")
    assert [count.state for count in scene.app.resilience.ledger.counts()] == [State.DEAD]
    assert scene.noted().count("begun") == DEADLY + 1
