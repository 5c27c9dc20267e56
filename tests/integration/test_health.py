"""`resilience-health`: which workers it calls healthy, and which it does not."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

import pytest

from resilience.testing.process import import_path, inherited_env
from resilience.testing.stack import WorkerProcess, run_worker
from resilience.testing.valkey import ValkeyProcess
from resilience.testing.waiting import wait_until
from resilience.worker import probe
from tests.brokers import Broker, running_broker
from tests.integration.apps import health

SECONDS = 120.0
LIMIT_SECONDS = 3.0
LONG_SECONDS = 2 * LIMIT_SECONDS
NODE = "mail@here"


class Host:
    """A machine with a broker, workers and a probe."""

    def __init__(self, broker: Broker, store: ValkeyProcess, directory: Path) -> None:
        health.app.conf.update(broker_url=broker.url, result_backend=None)
        self.broker = broker
        self.directory = directory
        self._env = {
            "CELERY_BROKER_URL": broker.url,
            "RESILIENCE_STORE_URL": store.url,
            "RESILIENCE_HEALTH_SECONDS": str(LIMIT_SECONDS),
            "RESILIENCE_RUNTIME_DIRECTORY": str(directory),
        }

    def worker(
        self, pool: str = "prefork", hostname: str = NODE
    ) -> AbstractContextManager[WorkerProcess]:
        """Return a worker that runs one job at a time."""
        return run_worker(
            health.__name__,
            queues=[health.QUEUE],
            concurrency=1,
            pool=pool,
            env=self._env,
            hostname=hostname,
        )

    def probe(self, *words: str) -> tuple[int, str]:
        """Run the probe's script; return its exit code and what it says."""
        env = inherited_env({probe.DIRECTORY_VARIABLE: str(self.directory)})
        command = [sys.executable, "-I", probe.__file__, *words]
        done = subprocess.run(  # noqa: S603 - the script itself
            command, env=env, capture_output=True, text=True, check=False
        )
        return done.returncode, done.stdout + done.stderr

    def await_verdict(self, text: str, *, healthy: bool) -> None:
        """Wait until the probe judges the worker so, and says *text*."""
        found = ""

        def says() -> bool:
            nonlocal found
            verdict = self._verdict()
            found = verdict["says"]
            return verdict["healthy"] is healthy and text in found

        try:
            wait_until(says, SECONDS, "the probe says it")
        except AssertionError as error:
            msg = f"{text!r} was awaited, {found!r} said"
            raise AssertionError(msg) from error

    def assert_stays_healthy(self, text: str, seconds: float) -> None:
        """Check that the probe says so for as long as that."""
        odd: list[dict[str, Any]] = []

        def is_odd() -> bool:
            verdict = self._verdict()
            if not (verdict["healthy"] and text in verdict["says"]):
                odd.append(verdict)
            return bool(odd)

        with suppress(AssertionError):
            wait_until(is_odd, seconds, "it is unhealthy")
        assert odd == []

    def _verdict(self) -> dict[str, Any]:
        """Return what the probe finds, without a process: tests ask again and again."""
        (verdict,) = probe.verdicts(self.directory, "mail")
        return verdict

    def order(self, command: str, **arguments: float) -> None:
        """Give the worker an order by remote control."""
        health.app.control.broadcast(command, arguments=arguments, destination=[NODE])

    def publish(self, seconds: float) -> None:
        """Publish a job that takes so long."""
        health.take.apply_async((seconds,), queue=health.QUEUE)

    def await_taken(self) -> None:
        """Wait until the worker has the job."""
        wait_until(lambda: self.broker.held() == 1, SECONDS, "the job is taken")


@pytest.fixture(scope="module")
def fragile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """Return a broker that tests may stop, one for all: a publisher stays where it is."""
    with running_broker(tmp_path_factory) as broker:
        yield broker


@pytest.fixture
def host(
    fragile: Broker, valkey: ValkeyProcess, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Host]:
    """Return a machine whose broker and store are empty."""
    if not fragile.running:
        fragile.start()
    fragile.empty()
    valkey.flush()
    yield Host(fragile, valkey, tmp_path_factory.mktemp("marks"))
    health.app.close()


@pytest.mark.parametrize(
    "pool",
    [
        "prefork",
        "solo",
        pytest.param("threads", marks=pytest.mark.long),
        pytest.param("gevent", marks=pytest.mark.long),
    ],
)
def test_worker_is_healthy_idle_or_busy_until_its_broker_is_gone_and_when_it_returns(
    host: Host, pool: str
) -> None:
    """Also a solo worker, whose event loop waits for the job's end.

    Without a broker the worker has no connection, and makes a new one when it can.
    """
    with host.worker(pool) as worker:
        host.await_verdict("consumes mail", healthy=True)
        host.publish(LONG_SECONDS)
        host.publish(0.0)
        host.await_taken()
        host.assert_stays_healthy("consumes mail", LONG_SECONDS + 1)  # also when the job has ended
        wait_until(lambda: not host.broker.held(), SECONDS, "it is idle again")
        host.broker.stop()
        host.await_verdict("", healthy=False)
        host.broker.start()
        host.await_verdict("consumes mail", healthy=True)
        worker.kill()


def test_probe_tells_workers_of_one_host_apart(host: Host) -> None:
    """By the name of the dependency or of the node; without one, all must be well."""
    with host.worker() as worker, host.worker(hostname="bank@here") as other:
        host.await_verdict("", healthy=True)
        wait_until(lambda: host.probe("bank@here")[0] == 0, SECONDS, "the other is healthy")
        other.kill()

        assert host.probe("mail") == (0, "mail@here: healthy: consumes mail\n")
        assert "bank@here: UNHEALTHY: is gone" in host.probe("bank")[1]
        code, text = host.probe("--json")
        assert code == 1
        assert {one["worker"]: one["healthy"] for one in json.loads(text)} == {
            "mail@here": True,
            "bank@here": False,
        }
        code, text = host.probe("nobody")
        assert code == 1
        assert "nobody: UNHEALTHY: no worker has left a mark" in text
        worker.kill()


def test_command_of_the_app_says_the_same(host: Host) -> None:
    """`celery … resilience health` finds the directory by the app's settings."""
    with host.worker() as worker:
        host.await_verdict("", healthy=True)
        command = [sys.executable, "-m", "celery", "-A", health.__name__, "resilience", "health"]
        env = inherited_env(
            {"PYTHONPATH": import_path(), probe.DIRECTORY_VARIABLE: str(host.directory)}
        )
        done = subprocess.run(  # noqa: S603 - the project's own command
            [*command, "mail"], env=env, capture_output=True, text=True, check=False
        )

        assert (done.returncode, done.stdout) == host.probe("mail")
        worker.kill()


def test_worker_whose_event_loop_hangs_is_unhealthy_until_it_goes_on(host: Host) -> None:
    """Its process and its other threads are alive."""
    with host.worker() as worker:
        host.await_verdict("", healthy=True)
        host.order("hang", seconds=LONG_SECONDS)
        host.await_verdict("its event loop has not run", healthy=False)
        host.await_verdict("consumes mail", healthy=True)
        worker.kill()


def test_worker_that_does_nothing_at_all_is_unhealthy(host: Host) -> None:
    """A process that is stopped, or starved, leaves no marks."""
    with host.worker() as worker:
        host.await_verdict("", healthy=True)
        worker.send_signal(signal.SIGSTOP)
        host.await_verdict("has left no mark", healthy=False)
        worker.kill()


def test_worker_whose_broker_is_silent_is_unhealthy_until_it_answers(host: Host) -> None:
    """Its connection stands, and its event loop runs."""
    with host.worker() as worker:
        host.await_verdict("", healthy=True)
        host.broker.send_signal(signal.SIGSTOP)
        host.await_verdict("", healthy=False)
        host.broker.send_signal(signal.SIGCONT)
        host.await_verdict("consumes mail", healthy=True)
        worker.kill()


def test_worker_that_consumes_from_none_of_its_queues_is_unhealthy(host: Host) -> None:
    """As after `control cancel_consumer`."""
    with host.worker() as worker:
        host.await_verdict("", healthy=True)
        health.app.control.cancel_consumer(health.QUEUE, destination=[NODE])
        host.await_verdict("consumes from none of its queues", healthy=False)
        worker.kill()


def test_worker_whose_queues_are_held_is_healthy(host: Host) -> None:
    """It does what it was told, and says so."""
    with host.worker() as worker:
        host.await_verdict("", healthy=True)
        host.order("hold")
        host.await_verdict("held: mail", healthy=True)
        worker.kill()


def test_worker_that_takes_no_job_although_it_could_is_unhealthy(host: Host) -> None:
    """Process, event loop, connection and subscription are there, and jobs wait all the same."""
    with host.worker() as worker:
        host.await_verdict("", healthy=True)
        host.order("stall")
        host.assert_stays_healthy("consumes mail", LONG_SECONDS)
        for _ in range(3):
            host.publish(0.0)  # a request for the next one is still out
        host.await_verdict("takes none of the jobs", healthy=False)
        worker.kill()


def test_worker_that_stops_is_healthy_to_its_end_and_leaves_no_mark(host: Host) -> None:
    """Nobody kills it amid its last jobs, and nobody misses it afterwards."""
    with host.worker() as worker:
        host.await_verdict("", healthy=True)
        host.publish(LONG_SECONDS)
        host.await_taken()
        worker.send_signal(signal.SIGTERM)
        host.await_verdict("stops", healthy=True)
        wait_until(lambda: not worker.running, SECONDS, "the worker has ended")

        assert "no worker has left a mark" in host.probe("mail")[1]
