"""`celery … resilience up` and `worker`, with real workers and a real broker."""

import re
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import psutil
import pytest

from resilience.testing.process import is_alive
from resilience.testing.valkey import ValkeyProcess
from resilience.testing.waiting import wait_until
from tests.brokers import Broker
from tests.foreground import SECONDS, Foreground, foreground
from tests.integration.apps import bulkheads

GRACE_SECONDS = 16
WORKER_OPTIONS = ["--", "--loglevel", "INFO", "--without-gossip", "--without-mingle"]

Run = Callable[..., AbstractContextManager[Foreground]]


@pytest.fixture
def run(broker: Broker, valkey: ValkeyProcess, tmp_path: Path) -> Iterator[Run]:
    """Runs `celery … resilience` with what it is called with; the app here has the same servers."""
    valkey.flush()
    bulkheads.app.conf.update(broker_url=broker.url, result_backend=valkey.url)
    celery = [sys.executable, "-m", "celery", "-A", bulkheads.__name__]
    servers = ["-b", broker.url, "--result-backend", valkey.url]
    yield lambda *words: foreground(
        [*celery, *servers, "resilience", *words, *WORKER_OPTIONS], tmp_path
    )
    bulkheads.app.close()


def node(name: str) -> str:
    """Return the node name of a worker on this machine."""
    return f"{name}@{socket.gethostname()}"


def answers(*names: str) -> bool:
    """Tell whether all these workers answer a ping."""
    wanted, control = [node(name) for name in names], bulkheads.app.control
    try:
        replies = control.ping(destination=wanted, timeout=1, limit=len(wanted)) or []
    except bulkheads.app.connection_for_write().connection_errors:
        return False  # the broker of an earlier test is gone, and its connection is noticed now
    return {name for reply in replies for name in reply} == set(wanted)


def await_answers(running: Foreground, *names: str) -> None:
    """Wait until all these workers answer a ping."""
    wait_until(lambda: answers(*names), SECONDS, f"{names} answer:\n{running.output}")


def stats_of(name: str) -> Mapping[str, Any]:
    """Return what a worker that answers says about itself; a question may be lost."""
    ask = bulkheads.app.control.inspect([node(name)], timeout=1, limit=1).stats
    return wait_until(lambda: (ask() or {}).get(node(name)), SECONDS, f"{name} says how it is")


def queues_of(workers: int) -> dict[str, set[str]]:
    """Return the queues of each worker; late answers to earlier questions are ignored."""
    ask = bulkheads.app.control.inspect(timeout=1).active_queues

    def found() -> Mapping[str, Any] | None:
        replies = ask() or {}
        return replies if len(replies) == workers else None

    replies = wait_until(found, SECONDS, f"{workers} workers say what they consume")
    return {
        name.partition("@")[0]: {queue["name"] for queue in queues}
        for name, queues in replies.items()
    }


def main_process(name: str) -> psutil.Process:
    """Return the main process of a worker that answers."""
    return psutil.Process(stats_of(name)["pid"])


def test_up_runs_its_workers_until_it_is_stopped(run: Run) -> None:
    """Each worker serves its own queues, and every line says whose it is.

    After SIGKILL of one worker its orphans are gone, another takes its place, and the rest stay.
    SIGTERM ends all processes in time, the exit code is 0, and nothing is killed.
    """
    names = ("users", "default")
    with run("up", "--only", ",".join(names)) as running:
        await_answers(running, *names)
        assert queues_of(2) == {"users": set(bulkheads.USERS.queues), "default": {"celery"}}
        killed, other = main_process("users"), main_process("default")
        pool = killed.children()
        assert pool

        killed.kill()

        running.wait_for("exited: users (terminated by SIGKILL; not expected)")
        await_answers(running, *names)
        assert main_process("users").pid != killed.pid
        assert main_process("default").pid == other.pid
        assert not any(is_alive(process.pid) for process in pool)
        for name in names:
            running.wait_for(f"{node(name)} ready.")
        assert len(running.family()) >= 3

        running.signal(signal.SIGTERM)

        assert running.wait(GRACE_SECONDS) == 0
        assert not running.family()
        for name in names:
            assert f"supervisor | stopped: {name} (exit status 0)" in running.lines
        origin = re.compile(r"(users|default|supervisor) *\| ")
        assert [line for line in running.output.splitlines() if not origin.match(line)] == []


@pytest.mark.long
def test_job_finishes_beside_a_worker_that_never_starts(run: Run, valkey: ValkeyProcess) -> None:
    """A start that fails comes again, as often as it must, and the other worker works on.

    After Ctrl-C its job ends as if nothing had happened.
    """
    with run("up", "--only", "broken,users") as running:
        result = bulkheads.finish_when_told.delay("started", "finish")
        running.wait_for("exited: broken (exit status 70; not expected)")
        running.wait_for("backoff: broken starts again in 1 s")
        valkey.client().blpop(["started"], timeout=SECONDS)

        running.signal(signal.SIGINT)
        running.wait_for("worker: Warm shutdown")
        valkey.client().rpush("finish", "done in peace")

        assert running.wait(GRACE_SECONDS) == 0
        assert not running.family()
        assert "supervisor | stopped: users (exit status 0)" in running.lines
        assert result.get(timeout=SECONDS) == "done in peace"


def test_worker_becomes_the_celery_worker_of_its_dependency(run: Run, broker: Broker) -> None:
    """The process that was started is the worker, with its own limits and the options given."""
    with run("worker", "payments") as running:
        await_answers(running, "payments")
        lanes = {"money.critical", "money", "money.sheddable", "money.retry"}
        assert queues_of(1) == {"payments": lanes}
        stats = stats_of("payments")
        assert stats["pool"]["max-concurrency"] == 2
        assert stats["prefetch_count"] == 6
        assert stats["pid"] == running.process.pid
        command = psutil.Process(running.process.pid).cmdline()

        running.signal(signal.SIGTERM)

        assert running.wait(GRACE_SECONDS) == 0
    words = " ".join(command)
    assert f"--app {bulkheads.__name__} --broker {broker.url}" in words
    queues = "money.critical,money,money.sheddable,money.retry"
    options = f"-Q {queues} -c 2 -P threads -n payments@%h --prefetch-multiplier 3"
    assert f"worker {options}" in words
    assert words.endswith(" ".join(WORKER_OPTIONS[1:]))
