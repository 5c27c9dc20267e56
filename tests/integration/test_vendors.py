"""Real workers and servers without Docker: pytest-celery on processes, and the plain helpers."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from celery.result import AsyncResult
from pytest_celery import CeleryTestSetup, CeleryTestWorker

from resilience.testing.process import (
    ProcessStartError,
    ServerProcess,
    import_path,
    inherited_env,
    is_alive,
)
from resilience.testing.requirement import require
from resilience.testing.stack import run_worker
from resilience.testing.valkey import ValkeyProcess
from resilience.testing.waiting import wait_until
from tests.integration import vendor_app
from tests.integration.vendor_tasks import triple

pytestmark = pytest.mark.redis_broker("the one broker of pytest-celery here is Valkey")
APP_PATH = "tests.integration.vendor_app"
QUEUE = "vendors"
SECONDS = 120


@pytest.fixture
def environment(valkey: ValkeyProcess) -> Iterator[Mapping[str, str]]:
    """What points a worker of the vendor app at an empty server; the app here points at it, too."""
    valkey.flush()
    conf = vendor_app.app.conf
    conf.update(broker_url=valkey.url, result_backend=valkey.url)
    yield {"CELERY_BROKER_URL": valkey.url, "CELERY_RESULT_BACKEND": valkey.url}
    vendor_app.app.close()


def family(worker: CeleryTestWorker) -> list[int]:
    """Return the ids of a worker and its pool, as pytest-celery's own query finds them."""
    found = worker.get_running_processes_info(["pid", "cmdline"])
    return [entry["pid"] for entry in found if worker.hostname() in (entry["cmdline"] or ())]


def pool_pid() -> int:
    """Let a worker of the vendor app run a task; return the id of the process that ran it."""
    pid: int = vendor_app.pool_pid.apply_async(queue=QUEUE).get(timeout=SECONDS)
    return pid


def triple_of(number: int, setup: CeleryTestSetup) -> AsyncResult[int]:
    """Publish a task of our module to the worker of pytest-celery."""
    return triple.s(number).apply_async(queue=setup.worker.worker_queue)


def test_setup_outlives_the_ends_of_its_worker_and_its_broker(
    celery_setup: CeleryTestSetup,
) -> None:
    """All readiness checks of pytest-celery pass, and its worker runs a task from our module.

    A SIGKILL leaves no process of the worker. A task that is published meanwhile is run by another
    worker, also when the broker was restarted. A worker that lives finds its broker again.
    """
    assert celery_setup.ready(ping=True, control=True, docker=True)
    assert triple_of(14, celery_setup).get(timeout=SECONDS) == 42
    killed = family(celery_setup.worker)
    assert len(killed) > 1

    celery_setup.worker.kill()

    assert celery_setup.worker.container.status == "exited"
    assert not any(map(is_alive, killed))
    result = triple_of(15, celery_setup)

    celery_setup.broker.restart(force=True)
    celery_setup.worker.restart()

    assert result.get(timeout=SECONDS) == 45
    assert celery_setup.ready(ping=True)
    restarted = family(celery_setup.worker)
    assert not set(killed) & set(restarted)

    celery_setup.broker.restart()

    assert triple_of(16, celery_setup).get(timeout=SECONDS) == 48
    assert family(celery_setup.worker) == restarted


def test_worker_runs_a_task_of_a_real_module_in_its_pool(environment: Mapping[str, str]) -> None:
    """run_worker serves the named queue, and children() lists the processes that run tasks."""
    with run_worker(APP_PATH, queues=[QUEUE], env=environment, loglevel="ERROR") as worker:
        ran_in = pool_pid()

        assert ran_in in worker.children()
        assert vendor_app.app.control.ping(destination=[worker.hostname], timeout=SECONDS, limit=1)
    assert not is_alive(ran_in)


def test_worker_starts_again_after_it_was_killed(environment: Mapping[str, str]) -> None:
    """kill() leaves nothing of a worker, and start() brings it back, ready."""
    with run_worker(APP_PATH, queues=[QUEUE], env=environment) as worker:
        killed = [worker.pid, *worker.children()]
        worker.kill()
        assert not any(map(is_alive, killed))

        worker.start()

        assert pool_pid() in worker.children()
        worker.kill()


def test_stop_kills_a_worker_that_does_not_react(environment: Mapping[str, str]) -> None:
    """A hung worker is gone after the seconds that stop() gives it."""
    with run_worker(APP_PATH, queues=[QUEUE], env=environment) as worker:
        hung = [worker.pid, *worker.children()]
        worker.send_signal(signal.SIGSTOP)

        worker.stop(seconds=0.1)

        assert not any(map(is_alive, hung))


def test_orphans_are_known_and_killed_when_their_leader_died(tmp_path: Path) -> None:
    """Children of a process that something else killed are found, and end with kill()."""
    code = "import subprocess; child = subprocess.Popen(['sleep', '60']); print('up'); child.wait()"
    command = [sys.executable, "-u", "-c", code]
    server = ServerProcess(command, ready="up", log_path=tmp_path / "log")
    server.start()
    try:
        os.kill(server.pid, signal.SIGKILL)
        wait_until(lambda: not server.running, SECONDS, "the leader is dead")
        (orphan,) = server.children()
    finally:
        server.kill()

    assert not is_alive(orphan)


def test_start_shows_the_log_when_the_app_cannot_be_imported() -> None:
    """A worker that ends before it is ready fails at once, with the reason that its log gives."""
    with (
        pytest.raises(ProcessStartError, match=r"(?s)end of its log:.*no_such_shop"),
        run_worker("no_such_shop", queues=[QUEUE]),
    ):
        pytest.fail("a worker without an app got ready")


def test_failure_in_the_block_carries_the_log(environment: Mapping[str, str]) -> None:
    """The error of a test that fails beside a worker says what the worker logged."""

    def fail_beside_a_worker() -> None:
        with run_worker(APP_PATH, queues=[QUEUE], env=environment, pool="solo") as worker:
            worker.kill()
            raise AssertionError

    with pytest.raises(AssertionError) as failure:
        fail_beside_a_worker()

    assert "worker is ready to consume" in failure.value.__notes__[0]


def test_failed_test_shows_the_logs_of_what_runs(tmp_path: Path) -> None:
    """Also of servers and workers that are there for a whole module."""
    (tmp_path / "test_it.py").write_text("def test_it(valkey):\n    assert not valkey.running\n")
    plugin = ["-p", "resilience.testing.plugin", "-p", "no:cacheprovider"]
    done = subprocess.run(  # noqa: S603 - tests start what they name
        [sys.executable, "-m", "pytest", "-c", "/dev/null", *plugin, str(tmp_path / "test_it.py")],
        env=inherited_env({"PYTHONPATH": import_path(), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}),
        capture_output=True,
        text=True,
        check=False,
    )

    assert "1 failed" in done.stdout
    shown = done.stdout.partition("Log of ")[2]
    assert "Ready to accept connections" in shown


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_valkey_keeps_its_data_and_address(valkey: ValkeyProcess, end: str) -> None:
    """What was written is there after a stop and after a kill, at the same address."""
    valkey.flush()
    valkey.client().rpush("queue", "work")

    getattr(valkey, end)()
    assert not valkey.running
    valkey.start()

    assert valkey.client().lrange("queue", 0, -1) == [b"work"]


def test_wait_until_returns_the_answer() -> None:
    """The first true answer ends the wait and is handed on."""
    answers = iter([0, "", "there"])

    assert wait_until(lambda: next(answers), SECONDS, "an answer comes") == "there"


def test_wait_until_says_what_did_not_happen() -> None:
    """A wait in vain names its subject and how long it lasted."""
    with pytest.raises(AssertionError, match=r"not within 0\.05 s: the moon is full"):
        wait_until(lambda: False, 0.05, "the moon is full")


@pytest.mark.parametrize(
    ("ci", "outcome"),
    [
        pytest.param("", pytest.skip.Exception, id="laptop-skips"),
        pytest.param("true", pytest.fail.Exception, id="build-fails"),
    ],
)
def test_missing_server_skips_or_fails(
    monkeypatch: pytest.MonkeyPatch, ci: str, outcome: type[BaseException]
) -> None:
    """Without a server a test is skipped, but never where CI=true; with it, it goes on."""
    monkeypatch.setenv("CI", ci)

    require("a server that runs", present=True)
    with pytest.raises(outcome, match="a server that does not"):
        require("a server that does not", present=False)
