"""`autoretry_for` holds for errors around the body as for those in it."""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
import redis
from celery.result import AsyncResult

from resilience import CircuitOpenError
from resilience.breaker import State
from resilience.testing.plugin import running_valkey
from resilience.testing.stack import run_worker
from resilience.testing.waiting import wait_until
from tests.brokers import running_broker
from tests.compatibility.apps.outage import UP_KEY, app

APP = "tests.compatibility.apps.outage"
SECONDS = 120
ORDER_SECONDS = 10.0
"""In which all processes of a worker on a busy machine hear of the order."""
CLOCKS_SECONDS = 0.5
"""The fleet's clock may be behind by half of the longest exchange."""
JOBS = 10
QUEUES = ("celery", "alpha", "beta", "gamma", "delta")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A client of the server that says whether the dependency is up, beside a running worker."""
    with ExitStack() as running:
        server = running.enter_context(running_valkey(tmp_path_factory))
        broker = running.enter_context(running_broker(tmp_path_factory))
        app.conf.update(broker_url=broker.url, result_backend=server.url)
        running.callback(app.close)
        env = {"CELERY_BROKER_URL": broker.url, "CELERY_RESULT_BACKEND": server.url}
        env["RESILIENCE_STORE_TIMEOUT_SECONDS"] = "5"
        worker = running.enter_context(run_worker(APP, queues=QUEUES, concurrency=4, env=env))
        yield running.enter_context(redis.Redis.from_url(server.url))
        worker.kill()


@pytest.fixture(autouse=True)
def _closed(store: Any) -> None:  # noqa: ANN401 - a redis client
    """Let no test meet the circuit of another."""
    store.delete(UP_KEY)
    for name in ("alpha", "delta"):
        app.resilience.breaker(name).reset(actor="test", reason="next test")  # type: ignore[attr-defined]


def publish(task: str, *args: object) -> AsyncResult[Any]:
    """Publish a task of the app."""
    return app.tasks[f"{APP}.{task}"].apply_async(args)


def calls(store: Any, job: AsyncResult[Any]) -> list[tuple[int, float]]:  # noqa: ANN401 - a redis client
    """Return attempt and time of each run of a job's body."""
    lines = [line.decode().split() for line in store.lrange(f"outage:{job.id}", 0, -1)]
    return [(int(attempt), float(when)) for _, attempt, when in lines]


def all_refused() -> bool:
    """Tell whether no process of the worker calls the dependency any more."""
    jobs = [publish("once_only") for _ in range(4 * JOBS)]
    errors = [job.get(timeout=SECONDS, propagate=False) for job in jobs]
    return {type(error) for error in errors} == {CircuitOpenError}


@pytest.mark.parametrize(
    "task", [pytest.param("plain", marks=pytest.mark.long), "guarded", "class_based"]
)
def test_jobs_outlast_an_outage_as_in_plain_celery(store: Any, task: str) -> None:  # noqa: ANN401
    """Once it is over, all jobs are done, whether they had failed or the circuit refused them."""
    breaker = app.resilience.breaker("alpha")  # type: ignore[attr-defined]
    jobs = [publish(task) for _ in range(JOBS)]
    if task == "plain":
        wait_until(lambda: all(len(calls(store, job)) > 1 for job in jobs), SECONDS, "all failed")
    else:  # the breaker counts what Celery makes a retry of
        wait_until(lambda: breaker.state is not State.CLOSED, SECONDS, "the circuit opens")
    store.set(UP_KEY, 1)

    assert [job.get(timeout=SECONDS) for job in jobs] == ["done"] * JOBS


def test_refused_jobs_back_off_as_declared(store: Any) -> None:  # noqa: ANN401 - a redis client
    """Also if the errors of their own are not worth a retry, which `dont_autoretry_for` says."""
    for job in [publish("once_only") for _ in range(JOBS)]:
        job.get(timeout=SECONDS, propagate=False)
    store.set(UP_KEY, 1)  # a process that does not know yet that the circuit is open answers
    jobs = [publish("backing_off") for _ in range(JOBS)]

    assert [job.get(timeout=SECONDS) for job in jobs] == ["done"] * JOBS
    store.delete(UP_KEY)
    failed = publish("backing_off")
    assert type(failed.get(timeout=SECONDS, propagate=False)) is ConnectionError
    assert len(calls(store, failed)) == 1


def test_refused_job_comes_back_no_sooner_than_the_circuit_says(store: Any) -> None:  # noqa: ANN401
    """It waits as long as the circuit refuses, and a refusal spends no attempt."""
    breaker = app.resilience.breaker("alpha")  # type: ignore[attr-defined]
    breaker.force_open(seconds=ORDER_SECONDS, actor="test", reason="no sooner than this")
    began = time.time()  # noqa: TID251 - of several processes
    wait_until(all_refused, SECONDS, "every process of the worker knows of it")
    store.set(UP_KEY, 1)
    job = publish("guarded")

    assert job.get(timeout=SECONDS) == "done"
    (attempt, when), *more = calls(store, job)
    assert attempt == 0
    assert not more
    assert when - began > ORDER_SECONDS - CLOCKS_SECONDS


def test_job_that_must_not_be_retried_fails_with_the_refusal(store: Any) -> None:  # noqa: ANN401
    """`max_retries=0` means none, for whatever reason it was refused."""
    jobs: list[AsyncResult[Any]] = []

    def refused() -> bool:
        jobs.extend([publish("once_only") for _ in range(JOBS)])
        errors = [job.get(timeout=SECONDS, propagate=False) for job in jobs]
        return {type(error) for error in errors} == {ConnectionError, CircuitOpenError}

    wait_until(refused, SECONDS, "jobs fail, and others are refused")
    assert max(len(calls(store, job)) for job in jobs) == 1


def test_timeout_is_retried_as_declared(store: Any) -> None:  # noqa: ANN401 - a redis client
    """A body that was cut runs again, as often as the task says."""
    done, failed = publish("slow", 2), publish("slow", 9)

    assert done.get(timeout=SECONDS) == "done"
    assert type(failed.get(timeout=SECONDS, propagate=False)).__name__ == "AttemptTimeoutError"
    assert [attempt for attempt, _ in calls(store, failed)] == [0, 1, 2]


def test_job_without_a_slot_is_retried_and_spends_no_attempt(store: Any) -> None:  # noqa: ANN401
    """Four jobs at once that share one slot are all done, though two retries are all they have."""
    jobs = [publish("crowded") for _ in range(6)]

    assert [job.get(timeout=SECONDS) for job in jobs] == ["done"] * 6
    assert {attempt for job in jobs for attempt, _ in calls(store, job)} == {0}


def test_job_whose_chain_has_no_answer_is_retried_as_declared(store: Any) -> None:  # noqa: ANN401
    """Level 4 is an error like any other, that `autoretry_for` may name."""
    job = publish("without_answer")
    wait_until(lambda: calls(store, job), SECONDS, "it is called while the dependency is away")
    store.set(UP_KEY, 1)

    assert job.get(timeout=SECONDS).value == "done"
    assert len(calls(store, job)) > 1


def test_error_before_the_start_is_not_retried_as_in_celery(store: Any) -> None:  # noqa: ANN401
    """Celery retries nobody whose `before_start` raises."""
    job = publish("prepared")

    assert type(job.get(timeout=SECONDS, propagate=False)) is ValueError
    assert len(calls(store, job)) == 1
