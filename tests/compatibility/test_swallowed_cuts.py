"""Bodies that handle, lose or store the cut of a limit: they are cut until they end."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from time import perf_counter
from typing import Any

import pytest

from resilience import AttemptTimeoutError, BudgetExceededError
from resilience.testing.plugin import running_valkey
from resilience.testing.stack import run_worker
from tests.brokers import running_broker
from tests.compatibility.apps.swallowing import BODIES, BODY_SECONDS, PIECE_SECONDS, app
from tests.tracing import CUTS_NO_THREAD

APP = "tests.compatibility.apps.swallowing"
POOLS = [
    pytest.param(
        ("prefork", "solo") if CUTS_NO_THREAD else ("prefork", "threads", "solo"),
        id="processes and threads",
    ),
    pytest.param(("gevent",), id="greenlets", marks=pytest.mark.long),
]
"""How greenlets are cut again, tests/unit/test_budget_limits.py asks as well."""
SECONDS = 120
SWALLOWED_SECONDS = PIECE_SECONDS * 1.5
"""A body that took longer was cut once at most, and went on."""


@pytest.fixture(scope="module")
def env(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Where broker and results are, for the workers of all pools."""
    with ExitStack() as running:
        server = running.enter_context(running_valkey(tmp_path_factory))
        broker = running.enter_context(running_broker(tmp_path_factory))
        app.conf.update(broker_url=broker.url, result_backend=server.url)
        running.callback(app.close)
        yield {
            "CELERY_BROKER_URL": broker.url,
            "CELERY_RESULT_BACKEND": server.url,
            "RESILIENCE_STORE_TIMEOUT_SECONDS": "5",
        }


@pytest.fixture(scope="module", params=POOLS)
def pools(request: pytest.FixtureRequest, env: dict[str, str]) -> Iterator[Sequence[str]]:
    """Pools with a worker, one job at a time, each with a queue of its own; all work at once."""
    pools: Sequence[str] = request.param
    with ExitStack() as running:
        for pool in pools:
            worker = run_worker(APP, queues=[pool], pool=pool, concurrency=1, env=env)
            running.callback(running.enter_context(worker).kill)  # how it stops is no matter here
        yield pools


def ends(pools: Sequence[str], task: str, *args: object, **options: Any) -> dict[str, Any]:  # noqa: ANN401 - as Celery's
    """Publish a task to the worker of each pool; return what each ends in, a result or an error."""
    job = app.tasks[f"{APP}.{task}"]
    jobs = [job.apply_async(args, queue=pool, **options) for pool in pools]
    found = [one.get(timeout=SECONDS, propagate=False) for one in jobs]
    return dict(zip(pools, found, strict=True))


@pytest.mark.parametrize("how", BODIES)
def test_body_that_swallows_its_cut_is_cut_until_it_ends(pools: Sequence[str], how: str) -> None:
    """It ends soon after the timeout, in the timeout's error, and nothing of it goes on."""
    began = perf_counter()
    errors = ends(pools, "guarded", how)
    took = perf_counter() - began

    assert {pool: type(one) for pool, one in errors.items()} == dict.fromkeys(
        pools, AttemptTimeoutError
    )
    assert took < SWALLOWED_SECONDS
    left = BODY_SECONDS - PIECE_SECONDS
    assert ends(pools, "left_behind", left / 2) == dict.fromkeys(pools, 0)


def test_job_is_cut_until_it_ends_at_the_end_of_its_budget(pools: Sequence[str]) -> None:
    """A body without a dependency ends in the budget's error, though it swallows the first cut."""
    for pool, error in ends(pools, "whole", "bare_except", budget=1.5).items():
        assert isinstance(error, BudgetExceededError), (pool, error)
        assert error.ran < SWALLOWED_SECONDS, pool


def test_call_is_cut_until_it_ends_at_the_end_of_its_share(pools: Sequence[str]) -> None:
    """A job goes on soon after the share of a call is used up, whatever that does with the cut."""
    for pool, said in ends(pools, "shared_out", "bare_except").items():
        assert said["ended"] == ["cut", "ok"], pool
        assert said["took"] < SWALLOWED_SECONDS, pool


def test_cut_that_a_job_stored_harms_no_later_job(pools: Sequence[str]) -> None:
    """A later job that is handed the stored cut fails, and its process goes on."""
    for name in ("store_the_cut", "raise_what_is_stored"):
        for pool, error in ends(pools, name).items():
            assert isinstance(error, AttemptTimeoutError), (name, pool, error)

    assert ends(pools, "left_behind", 0.0) == dict.fromkeys(pools, 0)
