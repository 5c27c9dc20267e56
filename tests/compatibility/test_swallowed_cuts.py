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
    """A worker of each pool, one job at a time, each with a queue of its own."""
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


@pytest.fixture(params=POOLS)
def pool(request: pytest.FixtureRequest, workers: Mapping[str, WorkerProcess]) -> str:
    """Each pool, with a worker that is ready."""
    name: str = request.param
    assert workers[name].running
    return name


def publish(task: str, *args: object, pool: str, **options: Any) -> AsyncResult[Any]:  # noqa: ANN401 - as Celery's
    """Publish a task of the app to the worker of *pool*."""
    return app.tasks[f"{APP}.{task}"].apply_async(args, queue=pool, **options)


@pytest.mark.parametrize("how", BODIES)
def test_body_that_swallows_its_cut_is_cut_until_it_ends(pool: str, how: str) -> None:
    """It ends soon after the timeout, in the timeout's error, and nothing of it goes on."""
    began = perf_counter()
    error = publish("guarded", how, pool=pool).get(timeout=SECONDS, propagate=False)
    took = perf_counter() - began

    assert isinstance(error, AttemptTimeoutError), error
    assert took < SWALLOWED_SECONDS
    left = BODY_SECONDS - PIECE_SECONDS
    assert publish("left_behind", left / 2, pool=pool).get(timeout=SECONDS) == 0


def test_job_is_cut_until_it_ends_at_the_end_of_its_budget(pool: str) -> None:
    """A body without a dependency ends in the budget's error, though it swallows the first cut."""
    budget = {"budget": 1.5}
    error = publish("whole", "bare_except", pool=pool, **budget).get(
        timeout=SECONDS, propagate=False
    )

    assert isinstance(error, BudgetExceededError), error
    assert error.ran < SWALLOWED_SECONDS


def test_call_is_cut_until_it_ends_at_the_end_of_its_share(pool: str) -> None:
    """A job goes on soon after the share of a call is used up, whatever that does with the cut."""
    said = publish("shared_out", "bare_except", pool=pool).get(timeout=SECONDS)

    assert said["ended"] == ["cut", "ok"]
    assert said["took"] < SWALLOWED_SECONDS


def test_cut_that_a_job_stored_harms_no_later_job(pool: str) -> None:
    """A later job that is handed the stored cut fails, and its process goes on."""
    ends = [
        publish(name, pool=pool).get(timeout=SECONDS, propagate=False)
        for name in ("store_the_cut", "raise_what_is_stored")
    ]

    assert [type(error) for error in ends] == [AttemptTimeoutError] * 2
    assert publish("left_behind", 0.0, pool=pool).get(timeout=SECONDS) == 0
