"""Workers that are stopped with SIGTERM: what has ended stays so, and the rest runs elsewhere."""

import fcntl
import os
import signal
import sys
import termios
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, suppress
from pathlib import Path

import pytest

from benchmarks.diary import Diary
from resilience.clock import SystemClock
from resilience.testing.stack import WorkerProcess, run_worker
from resilience.testing.valkey import ValkeyProcess
from resilience.testing.waiting import wait_until
from tests.brokers import Broker
from tests.integration.apps import stopping

SECONDS = 120.0
GRACE_SECONDS = 2.0
clock = SystemClock()
POOLS = ("prefork", "threads", "gevent", "solo")


class Stage:
    """A broker with jobs, workers, and what the workers' jobs wrote down."""

    def __init__(self, broker: Broker, store: ValkeyProcess, path: Path) -> None:
        stopping.app.conf.update(broker_url=broker.url, result_backend=None)
        self.broker = broker
        self.path = path
        self.diary = Diary(path, durable=True)
        self._env = {
            "CELERY_BROKER_URL": broker.url,
            "RESILIENCE_STORE_URL": store.url,
            "DIARY": str(path),
        }

    def worker(
        self,
        *,
        pool: str = "prefork",
        concurrency: int = 1,
        prefetch: int = 1,
        grace: float = 10 * SECONDS,
        loglevel: str = "INFO",
    ) -> AbstractContextManager[WorkerProcess]:
        """Return a worker with a grace period that ends no job of this test, or of *grace*."""
        env = {**self._env, "PREFETCH": str(prefetch), "RESILIENCE_GRACE_SECONDS": str(grace)}
        return run_worker(
            stopping.__name__,
            queues=[stopping.QUEUE],
            concurrency=concurrency,
            pool=pool,
            env=env,
            loglevel=loglevel,
        )

    def publish(self, *numbers: int, seconds: float = 0.0) -> None:
        """Publish jobs that take so long."""
        for number in numbers:
            stopping.work.apply_async((number, seconds), queue=stopping.QUEUE)

    def publish_held(self, *numbers: int) -> None:
        """Publish jobs that run until they are let go."""
        for number in numbers:
            stopping.hold.apply_async((number,), queue=stopping.QUEUE)

    def let_go(self, *numbers: int) -> None:
        """Let jobs end that `publish_held` has published."""
        for number in numbers:
            stopping.gate(str(self.path), number).touch()

    def count(self, what: str) -> Counter[str]:
        """Return how often each job was begun, or done."""
        return Counter(line["job"] for line in self.diary.read() if line["what"] == what)

    def await_count(self, what: str, **jobs: int) -> None:
        """Wait until jobs, `j1`, `j2` …, were begun, or done, so often."""
        wanted = {name.removeprefix("j"): times for name, times in jobs.items()}
        wait_until(
            lambda: all(self.count(what)[one] >= times for one, times in wanted.items()),
            SECONDS,
            f"{what}: {wanted}",
        )

    def is_empty(self) -> bool:
        """Tell whether the broker holds no job."""
        return not self.broker.waiting([stopping.QUEUE])


@pytest.fixture
def stage(broker: Broker, valkey: ValkeyProcess, tmp_path: Path) -> Iterator[Stage]:
    """Return a stage with an empty broker."""
    yield Stage(broker, valkey, tmp_path / "diary")
    stopping.app.close()


def begin_stop(worker: WorkerProcess) -> None:
    """Send SIGTERM, and wait until the worker has begun to stop."""
    worker.send_signal(signal.SIGTERM)
    wait_until(lambda: "Warm shutdown" in worker.log, SECONDS, "the worker stops")


def await_end(worker: WorkerProcess) -> None:
    """Wait until the worker has ended by itself."""
    wait_until(lambda: not worker.running, SECONDS, "the worker has ended")


@pytest.mark.parametrize(
    "pool", ["prefork", "threads", pytest.param("gevent", marks=pytest.mark.long), "solo"]
)
def test_stop_lets_jobs_end_within_the_grace_period(stage: Stage, pool: str) -> None:
    """A job that runs is ended, acknowledged, and never run again."""
    with stage.worker(pool=pool) as worker:
        stage.publish_held(1)
        stage.await_count("begun", j1=1)
        begin_stop(worker)
        stage.let_go(1)
        await_end(worker)

        assert stage.count("done") == {"1": 1}
        assert stage.is_empty()


def is_in_a_pipe_of(pid: int) -> bool:
    """Tell whether there is anything to read for a process that reads nothing."""
    for file in Path(f"/proc/{pid}/fd").iterdir():
        info = Path(f"/proc/{pid}/fdinfo/{file.name}").read_text()
        flags = int(info.partition("flags:")[2].split()[0], 8)
        if str(file.readlink()).startswith("pipe:") and flags & os.O_ACCMODE == os.O_RDONLY:
            with suppress(OSError), os.fdopen(os.open(file, os.O_RDONLY | os.O_NONBLOCK)) as pipe:
                waiting = fcntl.ioctl(pipe, termios.FIONREAD, bytes(4))
                if int.from_bytes(waiting, sys.byteorder):
                    return True
    return False


def test_stop_lets_a_job_end_that_a_child_has_not_begun_yet(stage: Stage) -> None:
    """A job on its way to the pool is not forgotten: it is acknowledged, and runs once."""
    with stage.worker(loglevel="DEBUG") as worker:
        [child] = worker.children()
        stage.publish(0)
        stage.await_count("done", j0=1)  # a child that is still starting would be sent nothing
        wait_until(stage.is_empty, SECONDS, "the worker has heard of it")
        os.kill(child, signal.SIGSTOP)
        assert not is_in_a_pipe_of(child)
        stage.publish(1)
        # Not as soon as the worker has taken it: one that stops then hands it back.
        wait_until(lambda: is_in_a_pipe_of(child), SECONDS, "it was sent to the child")
        begin_stop(worker)
        wait_until(lambda: "Consumer: Closing" in worker.log, SECONDS, "Celery forgets its jobs")
        os.kill(child, signal.SIGCONT)
        await_end(worker)

        assert stage.count("done") == {"0": 1, "1": 1}
        assert stage.is_empty()


@pytest.mark.parametrize(
    "pool",
    [pytest.param(one, marks=pytest.mark.long if one == "gevent" else ()) for one in POOLS],
)
def test_stop_hands_back_what_outlasts_the_grace_period(stage: Stage, pool: str) -> None:
    """A job that runs on is cut when the period is over; what had ended is not run again.

    Nobody but the worker itself can have put the job back: there is no other.
    """
    with stage.worker(pool=pool, grace=GRACE_SECONDS) as worker:
        stage.publish(1)
        stage.await_count("done", j1=1)
        stage.publish_held(2)
        stage.await_count("begun", j2=1)
        begun = clock.monotonic()
        begin_stop(worker)
        await_end(worker)
    assert clock.monotonic() - begun >= GRACE_SECONDS
    wait_until(lambda: stage.broker.kept(stopping.QUEUE) == 1, SECONDS, "the broker has it again")
    assert stage.broker.held() == 0
    with stage.worker() as other:
        stage.await_count("begun", j2=2)
        other.kill()
    assert stage.count("begun") == {"1": 1, "2": 2}


def test_stop_hands_back_at_once_what_was_not_begun(stage: Stage) -> None:
    """Jobs that the worker had only reserved run elsewhere while its own one still runs."""
    with stage.worker(prefetch=4) as worker:
        stage.publish_held(1, 2, 3, 4)
        stage.await_count("begun", j1=1)
        wait_until(lambda: stage.broker.held() == 4, SECONDS, "all are reserved")
        with stage.worker(concurrency=3) as other:
            begin_stop(worker)
            stage.await_count("begun", j2=1, j3=1, j4=1)

            assert not stage.count("done")
            stage.let_go(1, 2, 3, 4)
            stage.await_count("done", j1=1, j2=1, j3=1, j4=1)
            wait_until(stage.is_empty, SECONDS, "all are acknowledged")
            other.kill()
    assert set(stage.count("begun").values()) == {1}


@pytest.mark.long  # a minute each
@pytest.mark.timeout(180)
@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_restarts_lose_no_job_and_repeat_none_that_has_ended(stage: Stage, pool: str) -> None:
    """200 jobs, workers stopped again and again, each with several signals: all are done once."""
    with (
        stage.worker(pool=pool, concurrency=2, prefetch=2, grace=GRACE_SECONDS) as first,
        stage.worker(pool=pool, concurrency=2, prefetch=2, grace=GRACE_SECONDS) as second,
    ):
        for number in range(200):
            stage.publish(number, seconds=0.1 if number % 20 else 4.0)
        for worker in (first, second) * 3:
            worker.send_signal(signal.SIGTERM)
            worker.send_signal(signal.SIGTERM)
            await_end(worker)
            worker.start()
        wait_until(stage.is_empty, SECONDS, "all jobs have ended")

        assert stage.count("done") == {str(number): 1 for number in range(200)}
        again = {job for job, times in stage.count("begun").items() if times > 1}
        assert again
        assert all(int(job) % 20 == 0 for job in again)
        first.kill()
        second.kill()
