"""Queues that somebody ordered to be held, on real workers and through the command line."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable

import pytest
from celery.bin.base import CLIContext
from click.testing import CliRunner, Result

from resilience.cli import resilience
from resilience.monitor.status import look
from resilience.testing.process import import_path, inherited_env
from resilience.testing.waiting import wait_until
from tests.integration.held_stage import APP_PATH, SECONDS, HeldStage, servers, stage

__all__ = ["servers", "stage"]


@pytest.fixture
def order(stage: HeldStage) -> Callable[..., Result]:
    """Run `celery … resilience` in this process and return what it printed."""

    def run(*arguments: str) -> Result:
        context = CLIContext(app=stage.held.app, no_color=True, workdir=None)
        return CliRunner().invoke(resilience, arguments, obj=context)

    return run


def ordered(stage: HeldStage, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `celery … resilience` as an operator does, and return the finished process."""
    return subprocess.run(  # noqa: S603 - our own words
        [sys.executable, "-m", "celery", "-A", APP_PATH, "resilience", *arguments],
        env=inherited_env({**stage.env, "PYTHONPATH": import_path()}),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_worker_that_is_busy_takes_the_jobs_that_wait(
    stage: HeldStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long they wait: the workers themselves say from which queues they take jobs."""
    monkeypatch.setattr("resilience.monitor.status.LATE_SECONDS", -1.0)
    stage.publish("linger", 4)
    [one] = look(stage.resilience)["reasons"]
    assert (one["kind"], one["name"], one["level"]) == ("no_consumer", "mail", "FAILED")

    with stage.worker("mail", concurrency=1):
        wait_until(stage.calls, SECONDS, "a job runs")
        found = look(stage.resilience)

    assert found["queues"]["mail"] > 0
    assert found["consumers"] == {"mail": 1}
    assert found["reasons"] == []


def test_order_holds_a_queue_until_it_is_ended(
    stage: HeldStage, order: Callable[..., Result]
) -> None:
    """Workers stop within two seconds, say who ordered it, and go on when it is released."""
    with stage.worker("celery", concurrency=1) as worker:
        words = ("--seconds", "300", "--actor", "ann", "--reason", "moving")
        held = ordered(stage, "hold", "celery", *words)
        assert held.returncode == 0, held.stderr
        said = stage.await_event("QueueHeld", worker=worker.hostname)
        assert (said["queue"], said["actor"], said["reason"]) == ("celery", "ann", "moving")
        (row,) = json.loads(order("holds", "--json").stdout)
        assert 0 < row.pop("seconds_left") <= 300
        assert row.pop("until") - row.pop("since") == pytest.approx(300)
        assert row == {"name": "celery", "actor": "ann", "reason": "moving"}
        until = held.stdout.removeprefix("celery: held until ").strip()
        assert until in order("holds").stdout
        result = stage.held.plain.delay("k")
        assert order("release", "celery", "--actor", "bob").exit_code == 0
        assert result.get(timeout=20) == "k"
        assert stage.events("QueueReleased", worker=None, actor="bob")
        assert stage.events("QueueReleased", worker=worker.hostname)
        assert json.loads(order("holds", "--json").stdout) == []
        worker.kill()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        pytest.param(["hold", "mial", "--reason", "x"], "Did you mean 'mail'?", id="unknown"),
        pytest.param(["hold", "mail", "--seconds", "0", "--reason", "x"], "than 0", id="no-time"),
        pytest.param(["hold", "mail", "--reason", " "], "why", id="no-reason"),
        pytest.param(["release", "cellery"], "Did you mean 'celery'?", id="release"),
    ],
)
def test_order_is_refused_in_one_line_when_it_makes_no_sense(
    order: Callable[..., Result], arguments: list[str], said: str
) -> None:
    """A wrong order is a mistake of usage, and the message names what is wrong."""
    done = order(*arguments)
    assert done.exit_code == 2
    assert said in done.stderr


def test_worker_that_starts_while_a_hold_is_in_force_takes_nothing_until_it_expires(
    stage: HeldStage,
) -> None:
    """Not a single job is taken before; then it goes on by itself."""
    stage.resilience.holds.hold("mail", seconds=300, actor="ann", reason="test")
    keys = stage.publish("note", 5)
    with stage.worker("mail", "mail.retry", concurrency=2) as worker:
        stage.await_event("QueueHeld", worker=worker.hostname, actor="ann")
        assert stage.waiting() == len(keys)
        assert not stage.calls()
        stage.resilience.holds.hold("mail", seconds=1, actor="ann", reason="test")
        stage.await_done(keys)
        assert stage.events("QueueReleased", worker=worker.hostname)
        worker.kill()


def test_worker_still_holds_after_the_broker_was_lost_and_goes_on_once(stage: HeldStage) -> None:
    """A new connection consumes nothing that is held; released, each job runs once."""
    with stage.worker("mail", "mail.retry", concurrency=2) as worker:
        stage.resilience.holds.hold("mail", seconds=300, actor="ann", reason="test")
        stage.await_event("QueueHeld", worker=worker.hostname)
        keys = stage.publish("note", 20)
        for _ in range(2):
            before = worker.log.count("Connected to")
            stage.broker.kill()
            stage.broker.start()
            wait_until(lambda: worker.log.count("Connected to") > before, 30, "it is back")  # noqa: B023 - called at once
            wait_until(lambda: stage.pings(worker), 30, "it answers, so its event loop runs")
            assert stage.waiting() == len(keys)
        assert not stage.calls()
        stage.resilience.holds.release("mail", actor="ann", reason="test")
        stage.await_done(keys)
        assert stage.done(keys) == [1] * len(keys)
        assert len(stage.events("QueueReleased", worker=worker.hostname)) == 1
        worker.kill()


def test_held_worker_finishes_what_it_runs_and_ends_on_sigterm(stage: HeldStage) -> None:
    """Its job in hand is done, the others stay in the broker, and it ends by itself."""
    with stage.worker("mail", "mail.retry", concurrency=2) as worker:
        stage.await_done(stage.publish("note", 1))
        stage.resilience.holds.hold("mail", seconds=300, actor="ann", reason="test")
        stage.await_event("QueueHeld", worker=worker.hostname)
        keys = stage.publish("note", 5)
        worker.send_signal(signal.SIGTERM)
        wait_until(lambda: not worker.running, 15, "the worker has ended")
        assert stage.waiting() == len(keys)
        assert len(stage.calls()) == 1
