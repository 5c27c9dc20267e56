"""Budgets in real workers of every pool: what is cut, and what that leaves behind."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from typing import Any

import pytest
from celery.result import AsyncResult

from resilience import BudgetExceededError, Outcome
from resilience.testing.plugin import running_valkey
from resilience.testing.stack import WorkerProcess, run_worker
from tests.brokers import running_broker
from tests.integration.apps.cuts import CUT_SECONDS, HANG_SECONDS, SPIN_SECONDS, app

APP = "tests.integration.apps.cuts"
POOLS = ("prefork", "threads", "solo", "gevent")
SECONDS = 120
CUTS = 300
LATE_SECONDS = HANG_SECONDS * 0.9
"""A call that took longer was not cut."""


@pytest.fixture(scope="module")
def workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, WorkerProcess]]:
    """A worker of each pool, one job at a time, each with a queue of its own."""
    with ExitStack() as running:
        server = running.enter_context(running_valkey(tmp_path_factory))
        broker = running.enter_context(running_broker(tmp_path_factory))
        app.conf.update(broker_url=broker.url, result_backend=server.url)
        running.callback(app.close)
        env = {
            "CELERY_BROKER_URL": broker.url,
            "CELERY_RESULT_BACKEND": server.url,
            # A loaded machine may take more than the tenth of a second after which it is lost.
            "RESILIENCE_STORE_TIMEOUT_SECONDS": "5",
        }
        started = {
            pool: running.enter_context(
                run_worker(APP, queues=[pool], pool=pool, concurrency=1, env=env)
            )
            for pool in POOLS
        }
        yield started
        for worker in started.values():
            worker.kill()  # how they shut down is no matter here


@pytest.fixture(params=POOLS)
def pool(request: pytest.FixtureRequest, workers: Mapping[str, WorkerProcess]) -> str:
    """Each pool, with a worker that is ready."""
    name: str = request.param
    assert workers[name].running
    return name


def publish(task: str, *args: object, pool: str, **options: Any) -> AsyncResult[Any]:  # noqa: ANN401 - as Celery's
    """Publish a task of the app to the worker of *pool*."""
    return app.tasks[f"{APP}.{task}"].apply_async(args, queue=pool, **options)


def run(task: str, *args: object, pool: str) -> Any:  # noqa: ANN401 - any JSON
    """Return what a task of the app returns in the worker of *pool*."""
    return publish(task, *args, pool=pool).get(timeout=SECONDS)


def test_call_that_sleeps_is_cut(pool: str) -> None:
    """On every pool a job goes on at the end of the call's share, and the worker with the next."""
    said = run("block", "sleep", pool=pool)

    assert said["ended"] == ["cut", "ok"]
    assert said["answer"] == "default"
    assert CUT_SECONDS <= said["took"] < LATE_SECONDS
    assert run("echo", 7, pool=pool) == 7


def test_call_that_reads_a_socket_is_cut(pool: str) -> None:
    """The same for a read; on threads it is left behind, and counted until it ends."""
    run("let_go", pool=pool)

    said = run("block", "read", pool=pool)
    abandoned = run("let_go", pool=pool)

    assert said["ended"] == ["cut", "ok"]
    assert CUT_SECONDS <= said["took"] < LATE_SECONDS
    assert abandoned["before"] - abandoned["after"] == (1 if pool == "threads" else 0)


def test_call_that_spins_is_cut_except_under_gevent(pool: str) -> None:
    """A greenlet that does not wait runs to its end, late; elsewhere it is cut as any other."""
    said = run("block", "spin", pool=pool)

    if pool == "gevent":
        assert said["ended"] == ["ok", "ok"]
        assert said["answer"] is None
        assert said["took"] >= SPIN_SECONDS
    else:
        assert said["ended"] == ["cut", "ok"]
        assert CUT_SECONDS <= said["took"] < SPIN_SECONDS


def test_job_is_cut_at_the_end_of_its_budget(workers: Mapping[str, WorkerProcess]) -> None:
    """A body without a dependency ends in the budget's error, and the worker takes the next job."""
    assert workers
    results = {pool: publish("block_whole", "read", pool=pool, budget=4.0) for pool in POOLS}

    for pool, result in results.items():
        error = result.get(timeout=SECONDS, propagate=False)
        assert isinstance(error, BudgetExceededError), (pool, error)
        assert "was cut after" in str(error), pool
        assert result.state == "FAILURE"
        assert run("echo", 7, pool=pool) == 7


def test_job_with_a_chain_answers_at_the_end_of_its_budget(
    workers: Mapping[str, WorkerProcess],
) -> None:
    """A body with a dependency that has no timeout of its own is cut in time for its fallback."""
    assert workers
    results = {pool: publish("block_dependency", "sleep", pool=pool, budget=4.0) for pool in POOLS}

    for pool, result in results.items():
        outcome = result.get(timeout=SECONDS)
        assert isinstance(outcome, Outcome), pool
        assert outcome.value == "static"
        assert outcome.reason in {"AttemptTimeoutError", "BudgetExceededError"}
        assert run("echo", 7, pool=pool) == 7


def test_hundreds_of_cuts_leave_nothing_behind(pool: str) -> None:
    """Neither a thread, nor a call, nor a signal handler, nor a timer is left in the process."""
    said = run("cut", CUTS, pool=pool)

    assert said["cut"] == CUTS
    before, after = said["before"], said["after"]
    assert after["handler"] == before["handler"]
    assert after["timer"] == before["timer"] == [0.0, 0.0]
    assert after["threads"] <= before["threads"]
    assert after["abandoned"] == 0


def test_processes_outlive_what_was_cut_in_them(workers: Mapping[str, WorkerProcess]) -> None:
    """No pool had to replace a process: every cut ended the call, not who ran it."""
    for pool, worker in workers.items():
        assert worker.running, pool
        assert "WorkerLostError" not in worker.log, pool
        assert "TimeLimitExceeded" not in worker.log, pool
