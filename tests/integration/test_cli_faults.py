"""Faults are ordered from the command line, reach the whole fleet, and always end."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from resilience.chaos.guard import LEASE_SECONDS
from resilience.testing.stack import WorkerProcess, run_worker
from resilience.testing.valkey import ValkeyProcess
from resilience.testing.waiting import wait_until
from tests.brokers import Broker

APP = "tests.integration.apps.faulty"
COMMAND = [sys.executable, "-m", "celery", "-A", APP, "resilience"]
WHO = ("--actor", "ann", "--reason", "drill #7")
ON = {"RESILIENCE_CHAOS": "1"}
SOON_SECONDS = 20.0
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def urls(
    any_broker: Broker, valkey: ValkeyProcess, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """What a process of the app finds in its environment."""
    return {
        "CELERY_BROKER_URL": any_broker.url,
        "CELERY_RESULT_BACKEND": valkey.url,
        "RESILIENCE_NAMESPACE": "faulty",
        "RESILIENCE_LEDGER_URL": f"sqlite:///{tmp_path_factory.mktemp('l')}/ledger.db",
        "COLUMNS": "250",
    }


@pytest.fixture(scope="module")
def worker(any_broker: Broker, urls: dict[str, str]) -> Iterator[WorkerProcess]:
    """A worker that injects faults."""
    if not any_broker.running:
        any_broker.start()
    any_broker.empty()
    with run_worker(APP, queues=("ranking", "mail"), env={**urls, **ON}) as worker:
        yield worker
        worker.kill()


@pytest.fixture
def run(urls: dict[str, str]) -> Run:
    """Run `celery … resilience fault` in a process of its own and return it when it has ended."""

    def run(*arguments: str, **changed: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(  # noqa: S603 - our own words
            [*COMMAND, "fault", *arguments],
            env={**os.environ, **urls, **ON, **changed},  # noqa: TID251 - the child's
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    subprocess.run(  # noqa: S603 - our own words
        [*COMMAND, "breaker", "reset", "ranking", "--reason", "begin"],
        env={**os.environ, **urls},  # noqa: TID251 - the child's
        check=True,
        timeout=60,
    )
    run("stop-all")
    run("allow")
    return run


@pytest.fixture
def rank(urls: dict[str, str], worker: WorkerProcess) -> Callable[[], dict[str, Any]]:
    """Send a job to the worker and return what it answered, as JSON."""
    del worker

    def rank() -> dict[str, Any]:
        code = (
            f"import json; from {APP} import rank, app; app.set_default(); "
            "print(json.dumps(rank.delay().get(timeout=30).to_json()))"
        )
        done = subprocess.run(  # noqa: S603 - our own words
            [sys.executable, "-c", code],
            env={**os.environ, **urls},  # noqa: TID251 - the child's
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    return rank


def names(run: Run) -> list[str]:
    """Return the names of the faults in force."""
    done = run("list", "--json")
    assert done.returncode == 0, done.stderr
    return [row["name"] for row in json.loads(done.stdout)]


def test_fault_reaches_a_worker_marks_its_answers_and_ends_when_it_is_cleared(
    run: Run, rank: Callable[[], dict[str, Any]], worker: WorkerProcess
) -> None:
    """The whole way: an order, an injection that is announced and marked, and its end."""
    assert rank()["_meta"]["level"] == 0
    done = run("set", "ranking", "refuse", "--for", "2m", "--detach", *WHO)
    assert done.returncode == 0, done.stderr
    (name,) = names(run)

    wait_until(lambda: rank()["data"] == [], SOON_SECONDS, "the fault is injected")
    hurt = rank()["_meta"]

    assert (hurt["reason"], hurt["fault"]) == ("ConnectionRefusedError", name)
    wait_until(lambda: f"fault={name}" in worker.log, SOON_SECONDS, "the injection is logged")
    assert run("clear", name, *WHO).stdout == f"{name}: cleared\n"
    wait_until(lambda: rank()["_meta"]["level"] == 0, SOON_SECONDS, "answers are full again")
    assert "fault" not in rank()["_meta"]


def test_list_shows_who_ordered_what_and_until_when(run: Run) -> None:
    """For people and for programs."""
    options = ("--delay", "2s", "--rate", "0.3", "--distribution", "exponential", "--seed", "7")
    done = run("set", "mail", "latency", *options, "--for", "5m", "--detach", *WHO)
    assert done.returncode == 0, done.stderr

    (row,) = json.loads(run("list", "--json").stdout)

    assert row.pop("until") - row.pop("since") == pytest.approx(300)
    assert row.pop("name").startswith("mail-latency-")
    assert row == {
        "dependency": "mail",
        "kind": "latency",
        "rate": 0.3,
        "delay_seconds": 2.0,
        "distribution": "exponential",
        "error": "",
        "seed": 7,
        "share": 1.0,
        "what": "2 s exponential",
        "actor": "ann",
        "reason": "drill #7",
    }
    assert "drill #7" in run("list").stdout


def test_stop_all_ends_every_fault_and_refuses_new_ones(run: Run) -> None:
    """One command, also from a process that may inject nothing itself."""
    for kind in ("error", "hang"):
        assert run("set", "ranking", kind, "--detach", *WHO).returncode == 0

    done = run("stop-all", "--actor", "bob", "--reason", "enough", RESILIENCE_CHAOS="0")

    assert done.returncode == 0, done.stderr
    assert done.stdout.count("ranking-") == 2
    assert names(run) == []
    refused = run("set", "ranking", "error", "--detach", *WHO)
    assert refused.returncode == 1
    assert "bob has stopped all faults (enough)" in refused.stderr
    assert run("allow").stdout == "faults are accepted\n"
    assert run("set", "ranking", "error", "--detach", *WHO).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("ranknig", "error"), "Did you mean 'ranking'?"),
        (("ranking", "error", "--rate", "2"), "rate"),
        (("ranking", "latency"), "delay_seconds"),
        (("ranking", "error", "--error", "nowhere.Error"), "module.Class"),
        (("ranking", "eror"), "error"),
        (("ranking", "error", "--detach", "--stop-at-level", "stale"), "--detach"),
    ],
)
def test_wrong_order_is_refused_with_its_mend(
    run: Run, arguments: tuple[str, ...], named: str
) -> None:
    """One line that names the value."""
    done = run("set", *arguments, *WHO)

    assert done.returncode == 2
    assert named in done.stderr
    assert "Traceback" not in done.stderr


def test_fault_is_refused_where_chaos_is_off(run: Run) -> None:
    """Nobody injects a fault by mistake."""
    done = run("set", "ranking", "error", "--detach", *WHO, RESILIENCE_CHAOS="0")

    assert done.returncode == 2
    assert "RESILIENCE_CHAOS=1" in done.stderr


@pytest.fixture
def guard(urls: dict[str, str], run: Run) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start `fault set` in the foreground, and return it once its fault is in force."""
    started: list[subprocess.Popen[str]] = []

    def guard(*options: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(  # noqa: S603 - our own words
            [*COMMAND, "fault", "set", "ranking", "refuse", "--for", "5m", *options, *WHO],
            env={**os.environ, **urls, **ON},  # noqa: TID251 - the child's
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        wait_until(lambda: names(run) or process.poll() is not None, SOON_SECONDS, "it is set")
        return process

    yield guard
    for process in started:
        process.kill()
        process.communicate()


def test_ctrl_c_ends_the_fault_of_a_guard(
    run: Run, guard: Callable[..., subprocess.Popen[str]]
) -> None:
    """The command undoes what it did."""
    process = guard()
    process.send_signal(signal.SIGINT)

    assert "ended, as somebody ended its guard" in process.communicate(timeout=30)[0]
    assert process.returncode == 0
    assert names(run) == []


def test_fault_of_a_killed_guard_ends_by_itself(
    run: Run, guard: Callable[..., subprocess.Popen[str]]
) -> None:
    """SIGKILL leaves nobody to undo anything: the fault is a lease."""
    guard().kill()

    wait_until(lambda: not names(run), LEASE_SECONDS + SOON_SECONDS, "the lease is over")


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (("--stop-command", "test ! -e {path}"), "ended with 1"),
        (("--stop-at-burn-rate", "1"), "burns its error budget"),
        (("--stop-at-level", "stale"), "the level is"),
    ],
    ids=["command", "burn-rate", "level"],
)
def test_stop_condition_ends_the_fault(
    run: Run,
    guard: Callable[..., subprocess.Popen[str]],
    rank: Callable[[], dict[str, Any]],
    tmp_path: Path,
    options: tuple[str, str],
    why: str,
) -> None:
    """A command that fails, a burnt budget, a circuit that opens: each ends the fault in time."""
    sign = tmp_path / "stop"
    process = guard(*(one.format(path=sign) for one in options))
    sign.touch()

    def is_over() -> bool:
        rank()
        return process.poll() is not None

    wait_until(is_over, 90, "the guard has ended the fault")
    assert why in process.communicate()[0]
    assert names(run) == []
