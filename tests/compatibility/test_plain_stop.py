"""A worker of an adopted app that stops waits for plain tasks as Celery does."""

import json
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from benchmarks.diary import Diary
from resilience.testing.stack import WorkerProcess, run_worker
from resilience.testing.waiting import wait_until
from tests.brokers import Broker
from tests.compatibility.apps import people

SECONDS = 120.0
GRACE_SECONDS = 1.0
PLAIN_SECONDS = 8.0
"""More than the grace period, and than a Redis broker waits for a silent worker."""
LONG_SECONDS = 40.0


class Stage:
    """A broker, and an app's jobs that write down what they do."""

    def __init__(self, broker: Broker, path: Path, *, adopted: bool) -> None:
        self.broker, self._path, self._adopted = broker, path, adopted
        self.app = people.make_app("at once", broker.url)

    @contextmanager
    def working(self, *, pool: str = "prefork", concurrency: int = 1) -> Iterator[WorkerProcess]:
        """Run a worker with a grace period of a second."""
        env = {
            "ADOPTED": str(int(self._adopted)),
            "BROKER": self.broker.url,
            "DIARY": str(self._path),
            "RESILIENCE_GRACE_SECONDS": str(GRACE_SECONDS),
            # What a plain app is adopted with, so that both lose no job.
            "SETTINGS": json.dumps({"task_acks_late": True}),
        }
        queues = [people.QUEUE, people.PLAIN_QUEUE]
        how = {"pool": pool, "concurrency": concurrency}
        with run_worker(people.__name__, queues=queues, env=env, **how) as worker:
            yield worker
            worker.kill()

    def count(self, what: str) -> Counter[int]:
        """Return how often each job has begun, or was done."""
        return Counter(line["job"] for line in Diary(self._path).read() if line["what"] == what)

    def await_count(self, what: str, jobs: Counter[int]) -> None:
        """Wait until these *jobs* have begun, or are done, so often."""
        wait_until(lambda: self.count(what) >= jobs, SECONDS, f"{what}: {jobs}")


@pytest.mark.parametrize(
    ("pool", "adopted"),
    [
        pytest.param("prefork", False, id="plain", marks=pytest.mark.long),
        pytest.param("solo", True, id="solo"),
    ],
)
def test_stop_waits_for_a_plain_job(
    broker: Broker,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    pool: str,
    adopted: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    """A plain job ends after the grace period, is acknowledged, and runs nowhere else.

    Plain Celery says what that means; where several jobs run at once, the next test asks.
    """
    monkeypatch.setenv("ADOPTED", str(int(adopted)))
    stage = Stage(broker, tmp_path / "diary", adopted=adopted)
    with stage.working(pool=pool) as worker:
        stage.app.tasks["plain"].delay(1, PLAIN_SECONDS)
        stage.await_count("begun", Counter([1]))
        with stage.working():
            worker.send_signal(signal.SIGTERM)
            wait_until(lambda: not worker.running, SECONDS, "the worker has ended")

            assert stage.count("done") == Counter([1])
            wait_until(lambda: not broker.held(), SECONDS, "the job is acknowledged")
    assert stage.count("begun") == Counter([1])
    stage.app.close()


@pytest.mark.parametrize(
    "pool",
    ["prefork", *(pytest.param(one, marks=pytest.mark.long) for one in ("threads", "gevent"))],
)
def test_stop_cuts_the_job_of_a_dependency_beside_a_plain_one(
    broker: Broker, tmp_path: Path, pool: str
) -> None:
    """That job is handed back, at the latest when the plain one has ended; that one runs once."""
    stage = Stage(broker, tmp_path / "diary", adopted=True)
    with stage.working(pool=pool, concurrency=2) as worker:
        stage.app.tasks["plain"].delay(1, PLAIN_SECONDS)
        stage.app.tasks["charge"].delay(2, LONG_SECONDS)
        stage.await_count("begun", Counter([1, 2]))
        with stage.working():
            worker.send_signal(signal.SIGTERM)
            wait_until(lambda: not worker.running, LONG_SECONDS / 2, "the worker has ended")
            stage.await_count("begun", Counter([1, 2, 2]))

            assert stage.count("done") == Counter([1])
            wait_until(lambda: stage.broker.held() == 1, SECONDS, "the plain job is acknowledged")
    assert stage.count("begun") == Counter([1, 2, 2])
    stage.app.close()
