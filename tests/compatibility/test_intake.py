"""How many jobs a worker takes ahead: Celery's own options hold in an adopted app."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from benchmarks.diary import Diary
from resilience.testing.stack import run_worker
from resilience.testing.valkey import ValkeyProcess
from resilience.testing.waiting import wait_until
from tests.brokers import Valkey
from tests.compatibility.apps import people

SECONDS = 120.0
LONG_SECONDS = 600.0
"""Ends after every deadline of a test: what waits behind such a job is not seen to be done."""
SHORT_SECONDS = 0.1
BOTH = [people.QUEUE, people.PLAIN_QUEUE]
OWN_PREFETCH = 4
PLAIN = pytest.param(False, id="plain", marks=pytest.mark.long)
"""What Celery itself does: it changes with Celery alone."""
EITHER = pytest.mark.parametrize("adopted", [PLAIN, pytest.param(True, id="adopted")])
POOLS = pytest.mark.parametrize(
    ("pool", "adopted"),
    [
        pytest.param("prefork", False, id="plain", marks=pytest.mark.long),
        *[pytest.param(one, True, id=one) for one in ("prefork", "threads", "solo")],
        pytest.param("gevent", True, id="gevent", marks=pytest.mark.long),
    ],
)

pytestmark = pytest.mark.redis_broker("these options are Celery's for Redis, or as on Redis")


class Stage:
    """A Valkey with jobs, and workers of the app."""

    def __init__(self, server: ValkeyProcess, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        server.flush()
        self.broker, self._path, self._patch = Valkey(server), path, monkeypatch
        self.diary = Diary(path)

    @contextmanager
    def working(
        self,
        *extra: str,
        adopted: bool,
        settings: dict[str, Any],
        **options: Any,  # noqa: ANN401 - of run_worker
    ) -> Iterator[Celery[Any]]:
        """Run a worker, and return the app of a publisher."""
        env = {
            "ADOPTED": str(int(adopted)),
            "BROKER": self.broker.url,
            "DIARY": str(self._path),
            "SETTINGS": json.dumps(settings),
        }
        self._patch.setenv("ADOPTED", env["ADOPTED"])
        app = people.make_app("at once", self.broker.url, settings)
        with run_worker(people.__name__, queues=BOTH, env=env, extra=extra, **options) as worker:
            yield app
            worker.kill()
        app.close()

    def publish(self, app: Celery[Any], seconds: Sequence[float]) -> None:
        """Publish a job for each of *seconds*, in turn to one queue and the other."""
        for number, one in enumerate(seconds):
            app.tasks["charge" if number % 2 else "plain"].delay(number, one)

    def count(self, what: str) -> int:
        """Return how many jobs have begun, or are done."""
        return sum(line["what"] == what for line in self.diary.read())

    def wait_until_counted(self, what: str, jobs: int) -> None:
        """Wait until so many *jobs* have begun, or are done."""
        wait_until(lambda: self.count(what) >= jobs, SECONDS, f"{jobs} jobs are {what}")


@pytest.fixture
def stage(valkey: ValkeyProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    """Return a stage with an empty broker."""
    return Stage(valkey, tmp_path / "diary", monkeypatch)


@POOLS
def test_disabled_prefetch_takes_only_what_runs(
    stage: Stage,
    pool: str,
    adopted: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    """With `--disable-prefetch` a busy worker holds no job beside those that run, of any queue."""
    settings = {"worker_prefetch_multiplier": OWN_PREFETCH, "task_acks_late": True}
    at_once = 1 if pool == "solo" else 2
    how = {"adopted": adopted, "settings": settings, "pool": pool, "concurrency": at_once}
    with stage.working("--disable-prefetch", **how) as app:
        stage.publish(app, [SHORT_SECONDS] * 6)
        stage.wait_until_counted("done", 6)
        stage.publish(app, [LONG_SECONDS] * 6)
        stage.wait_until_counted("begun", 6 + at_once)

        assert stage.broker.held() == at_once


@EITHER
def test_own_prefetch_multiplier_holds(
    stage: Stage,
    adopted: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    """An app's own `worker_prefetch_multiplier` says how many jobs a worker reserves."""
    settings = {"worker_prefetch_multiplier": OWN_PREFETCH, "task_acks_late": True}
    with stage.working(adopted=adopted, settings=settings, concurrency=1) as app:
        stage.publish(app, [LONG_SECONDS] * 6)
        stage.wait_until_counted("begun", 1)

        wait_until(lambda: stage.broker.held() == OWN_PREFETCH, SECONDS, "it reserves four")


@EITHER
def test_autoscale_grows_the_pool(
    stage: Stage,
    adopted: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    """With `--autoscale` a worker takes as many jobs as its largest pool runs, and runs them."""
    with stage.working("--autoscale=3,1", adopted=adopted, settings={}, concurrency=1) as app:
        stage.publish(app, [LONG_SECONDS] * 4)

        stage.wait_until_counted("begun", 3)
        assert not adopted or stage.broker.held() == 3


@EITHER
def test_fair_scheduling_leaves_no_job_behind_a_long_one(
    stage: Stage,
    adopted: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    """With `-O fair` short jobs run in one process while a long one runs in the other."""
    settings = {"worker_prefetch_multiplier": OWN_PREFETCH}
    with stage.working("-O", "fair", adopted=adopted, settings=settings, concurrency=2) as app:
        stage.publish(app, [LONG_SECONDS] + [SHORT_SECONDS] * 5)

        stage.wait_until_counted("done", 5)


@EITHER
def test_eta_limit_bounds_what_waits_in_memory(
    stage: Stage,
    adopted: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    """`worker_eta_task_limit` is the most jobs that a worker holds for their time to come."""
    settings = {"worker_eta_task_limit": 3}
    with stage.working(adopted=adopted, settings=settings, concurrency=1) as app:
        for number in range(6):
            app.tasks["plain"].apply_async((number, SHORT_SECONDS), countdown=3600)

        wait_until(lambda: stage.broker.held() >= 3, SECONDS, "it holds three")
        stage.publish(app, [SHORT_SECONDS])
        assert stage.broker.held() == 3
        assert stage.broker.kept(people.PLAIN_QUEUE) == 4
