"""Bodies that handle, lose or store the cut of a limit: they are cut until they end."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from time import perf_counter
from typing import Any

import pytest
from celery.result import AsyncResult

from resilience import AttemptTimeoutError, BudgetExceededError
from resilience.testing.plugin import running_valkey
from resilience.testing.stack import WorkerProcess, run_worker
from tests.brokers import running_broker
from tests.compatibility.apps.swallowing import BODIES, BODY_SECONDS, PIECE_SECONDS, app

APP = "tests.compatibility.apps.swallowing"
POOLS = ("prefork", "threads", "solo", "gevent")
SECONDS = 120
SWALLOWED_SECONDS = PIECE_SECONDS * 1.5
"""A body that took longer was cut once at most, and went on."""


@pytest.fixture(scope="module")
def workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, WorkerProcess]]:
    """A worker of each pool, one job at a time, each with a queue of its own; all work at once."""
    with ExitStack() as running:
        server = running.enter_context(running_valkey(tmp_path_factory))
        broker = running.enter_context(running_broker(tmp_path_factory))
        app.conf.update(broker_url=broker.url, result_backend=server.url)
        running.callback(app.close)
        env = {
            "CELERY_BROKER_URL": broker.url,
            "CELERY_RESULT_BACKEND": server.url,
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


def publish(task: str, *args: object, **options: Any) -> dict[str, AsyncResult[Any]]:  # noqa: ANN401 - as Celery's
    """Publish a task of the app to the worker of each pool."""
    job = app.tasks[f"{APP}.{task}"]
    return {pool: job.apply_async(args, queue=pool, **options) for pool in POOLS}


def ends(jobs: Mapping[str, AsyncResult[Any]]) -> dict[str, Any]:
    """Return by pool what *jobs* end in, a result or an error."""
    return {pool: job.get(timeout=SECONDS, propagate=False) for pool, job in jobs.items()}


@pytest.mark.usefixtures("workers")
@pytest.mark.parametrize("how", BODIES)
def test_body_that_swallows_its_cut_is_cut_until_it_ends(how: str) -> None:
    """It ends soon after the timeout, in the timeout's error, and nothing of it goes on."""
    began = perf_counter()
    errors = ends(publish("guarded", how))
    took = perf_counter() - began

    assert {pool: type(one) for pool, one in errors.items()} == dict.fromkeys(
        POOLS, AttemptTimeoutError
    )
    assert took < SWALLOWED_SECONDS
    left = BODY_SECONDS - PIECE_SECONDS
    assert ends(publish("left_behind", left / 2)) == dict.fromkeys(POOLS, 0)


@pytest.mark.usefixtures("workers")
def test_job_is_cut_until_it_ends_at_the_end_of_its_budget() -> None:
    """A body without a dependency ends in the budget's error, though it swallows the first cut."""
    for pool, error in ends(publish("whole", "bare_except", budget=1.5)).items():
        assert isinstance(error, BudgetExceededError), (pool, error)
        assert error.ran < SWALLOWED_SECONDS, pool


@pytest.mark.usefixtures("workers")
def test_call_is_cut_until_it_ends_at_the_end_of_its_share() -> None:
    """A job goes on soon after the share of a call is used up, whatever that does with the cut."""
    for pool, said in ends(publish("shared_out", "bare_except")).items():
        assert said["ended"] == ["cut", "ok"], pool
        assert said["took"] < SWALLOWED_SECONDS, pool


@pytest.mark.usefixtures("workers")
def test_cut_that_a_job_stored_harms_no_later_job() -> None:
    """A later job that is handed the stored cut fails, and its process goes on."""
    for name in ("store_the_cut", "raise_what_is_stored"):
        for pool, error in ends(publish(name)).items():
            assert isinstance(error, AttemptTimeoutError), (name, pool, error)

    assert ends(publish("left_behind", 0.0)) == dict.fromkeys(POOLS, 0)
