"""Faults are ordered from the command line, reach the whole fleet, and always end."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from celery.bin.base import CLIContext
from click.testing import CliRunner, Result

from resilience.chaos.guard import LEASE_SECONDS
from resilience.cli import resilience as command
from resilience.testing.stack import WorkerProcess, run_worker
from resilience.testing.valkey import ValkeyProcess
from resilience.testing.waiting import wait_until
from tests.brokers import Broker
from tests.fresh import imported_anew

APP = "tests.integration.apps.faulty"
WHO = ("--actor", "ann", "--reason", "drill #7")
GUARD = (sys.executable, "-m", "celery", "-A", APP, "resilience", "fault", "set")
SOON_SECONDS = 20.0
Run = Callable[..., Result]


@pytest.fixture(scope="module")
def faulty(
    any_broker: Broker, valkey: ValkeyProcess, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ModuleType]:
    """The app, in this process, which injects faults as its workers do."""
    if not any_broker.running:
        any_broker.start()
    any_broker.empty()
    ledger = f"sqlite:///{tmp_path_factory.mktemp('ledger')}/ledger.db"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CELERY_BROKER_URL", any_broker.url)
        patch.setenv("CELERY_RESULT_BACKEND", valkey.url)
        patch.setenv("RESILIENCE_NAMESPACE", "faulty")
        patch.setenv("RESILIENCE_LEDGER_URL", ledger)
        patch.setenv("RESILIENCE_STORE_TIMEOUT_SECONDS", "10")  # the machine may be busy
        patch.setenv("RESILIENCE_CHAOS", "1")
        made = imported_anew(patch, APP)
        yield made
        made.app.resilience.store.client.close()
        made.app.close()


@pytest.fixture(scope="module")
def worker(faulty: ModuleType) -> Iterator[WorkerProcess]:
    """A worker of the app."""
    del faulty
    with run_worker(APP, queues=("ranking", "mail")) as worker:
        yield worker
        worker.kill()


@pytest.fixture
def run(faulty: ModuleType) -> Run:
    """Run `celery … resilience fault`; no fault is in force, and the circuit is closed."""

    def run(*arguments: str) -> Result:
        context = CLIContext(app=faulty.app, no_color=True, workdir=None)
        return CliRunner().invoke(command, ["fault", *arguments], obj=context)

    faulty.app.resilience.breaker("ranking").reset(actor="test", reason="begin")
    run("stop-all")
    run("allow")
    return run


@pytest.fixture
def rank(faulty: ModuleType, worker: WorkerProcess) -> Callable[[], dict[str, Any]]:
    """Send a job to the worker and return what it answered, as JSON."""
    del worker

    def rank() -> dict[str, Any]:
        answer: dict[str, Any] = faulty.rank.delay().get(timeout=30).to_json()
        return answer

    return rank


def names(run: Run) -> list[str]:
    """Return the names of the faults in force."""
    done = run("list", "--json")
    assert done.exit_code == 0, done.stderr
    return [row["name"] for row in json.loads(done.stdout)]


def test_fault_reaches_a_worker_marks_its_answers_and_ends_when_it_is_cleared(
    run: Run, rank: Callable[[], dict[str, Any]], worker: WorkerProcess
) -> None:
    """The whole way: an order, an injection that is announced and marked, and its end."""
    assert rank()["_meta"]["level"] == 0
    done = run("set", "ranking", "refuse", "--for", "2m", "--detach", *WHO)
    assert done.exit_code == 0, done.stderr
    (name,) = names(run)

    def hurt() -> dict[str, Any] | None:
        """Return an answer that the fault hurt, and nothing else, as a busy machine may."""
        answer = rank()
        return answer if "fault" in answer["_meta"] else None

    answer = wait_until(hurt, SOON_SECONDS, "the fault is injected")
    assert answer["data"] == []
    assert (answer["_meta"]["reason"], answer["_meta"]["fault"]) == ("ConnectionRefusedError", name)
    wait_until(lambda: f"fault={name}" in worker.log, SOON_SECONDS, "the injection is logged")
    assert run("clear", name, *WHO).stdout == f"{name}: cleared\n"
    wait_until(lambda: rank()["_meta"]["level"] == 0, SOON_SECONDS, "answers are full again")
    assert "fault" not in rank()["_meta"]


def test_list_shows_who_ordered_what_and_until_when(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For people and for programs."""
    options = ("--delay", "2s", "--rate", "0.3", "--distribution", "exponential", "--seed", "7")
    done = run("set", "mail", "latency", *options, "--for", "5m", "--detach", *WHO)
    assert done.exit_code == 0, done.stderr

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
    monkeypatch.setenv("COLUMNS", "250")
    assert "drill #7" in run("list").stdout


def test_stop_all_ends_every_fault_and_refuses_new_ones(run: Run) -> None:
    """One command, and another that takes it back."""
    for kind in ("error", "hang"):
        assert run("set", "ranking", kind, "--detach", *WHO).exit_code == 0

    done = run("stop-all", "--actor", "bob", "--reason", "enough")

    assert done.exit_code == 0, done.stderr
    assert done.stdout.count("ranking-") == 2
    assert names(run) == []
    refused = run("set", "ranking", "error", "--detach", *WHO)
    assert refused.exit_code == 1
    assert "bob has stopped all faults (enough)" in refused.stderr
    assert run("allow").stdout == "faults are accepted\n"
    assert run("set", "ranking", "error", "--detach", *WHO).exit_code == 0


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

    assert done.exit_code == 2
    assert named in done.stderr
    assert "Traceback" not in done.stderr


def test_fault_is_refused_where_chaos_is_off(
    run: Run, faulty: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody injects a fault by mistake; to stop them all is allowed anywhere."""
    monkeypatch.setattr(faulty.app.resilience.faults, "allowed", False)
    assert run("stop-all").exit_code == 0
    done = run("set", "ranking", "error", "--detach", *WHO)

    assert done.exit_code == 2
    assert "RESILIENCE_CHAOS=1" in done.stderr


@pytest.fixture
def guard(run: Run) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start `fault set` in the foreground, and return it once its fault is in force."""
    started: list[subprocess.Popen[str]] = []

    def guard(*options: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(  # noqa: S603 - our own words
            [*GUARD, "ranking", "refuse", "--for", "5m", *options, *WHO],
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        wait_until(lambda: names(run) or process.poll() is not None, SOON_SECONDS, "it is set")
        return process

    yield guard
    for process in started:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


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
