"""What frameworks keep by thread belongs to a job of the threads pool, as in plain Celery."""

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from celery.result import AsyncResult

from resilience import Level
from resilience.testing.plugin import running_valkey
from resilience.testing.stack import WorkerProcess, run_worker
from resilience.testing.waiting import wait_until
from tests.brokers import running_broker
from tests.compatibility.apps.sessions import app

APP = "tests.compatibility.apps.sessions"
SECONDS = 120
JOBS = 8
"""Of each kind: more than run at once."""


@pytest.fixture(scope="module")
def env(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Where broker and results are, for the workers of all pools."""
    with ExitStack() as running:
        server = running.enter_context(running_valkey(tmp_path_factory))
        broker = running.enter_context(running_broker(tmp_path_factory))
        app.conf.update(broker_url=broker.url, result_backend=server.url)
        running.callback(app.close)
        yield {"CELERY_BROKER_URL": broker.url, "CELERY_RESULT_BACKEND": server.url}


@pytest.fixture(
    scope="module", params=["threads", "solo", pytest.param("gevent", marks=pytest.mark.long)]
)
def worker(request: pytest.FixtureRequest, env: dict[str, str]) -> Iterator[WorkerProcess]:
    """A worker of each pool whose jobs share a process."""
    queues = ["celery", "alpha"]
    with run_worker(APP, queues=queues, pool=request.param, concurrency=4, env=env) as started:
        yield started


def publish(task: str, *args: object, **options: Any) -> AsyncResult[Any]:  # noqa: ANN401 - as Celery's
    """Publish a task of the app."""
    return app.tasks[f"{APP}.{task}"].apply_async(args, **options)


def connections_in_use() -> int:
    """Return how many connections of the worker's pool are in use."""
    found: int = publish("checked_out").get(timeout=SECONDS)
    return found


@pytest.mark.usefixtures("worker")
def test_no_job_finds_the_session_of_another() -> None:
    """Signals, body and fallback share a thread: `Session.remove()` removes the body's session."""
    kinds: dict[str, tuple[str, tuple[str, ...], dict[str, Any]]] = {
        "plain Celery": ("plain", (), {}),
        "timeout of the dependency": ("guarded", (), {}),
        "budget of the job": ("limited", (), {"budget": 60.0}),
        "both": ("guarded", (), {"budget": 60.0}),
        "fallback": ("degraded", ("x",), {}),
    }
    jobs = [
        (kind, publish(task, *args, **options))
        for _ in range(JOBS)
        for kind, (task, args, options) in kinds.items()
    ]
    found = [(kind, job.get(timeout=SECONDS)) for kind, job in jobs]
    said = [(kind, getattr(one, "value", one)) for kind, one in found]

    assert [kind for kind, one in said if one["foreign"]] == []
    assert [kind for kind, one in said if not one["same_thread"]] == []
    wait_until(lambda: not connections_in_use(), SECONDS, "all connections are given back")


@pytest.mark.usefixtures("worker")
def test_call_under_a_share_of_a_budget_finds_no_session_of_another() -> None:
    """Its thread ends with it, and its session as well."""
    jobs = [publish("shared_out") for _ in range(JOBS)]

    assert [job.get(timeout=SECONDS)["foreign"] for job in jobs] == [False] * JOBS


@pytest.mark.usefixtures("worker")
def test_job_that_blocks_answers_in_time_and_cleans_up_when_it_ends() -> None:
    """Its fallback answers, once; when its thread wakes up it runs `task_postrun`, and no more."""
    job = publish("blocked", "body")
    outcome = job.get(timeout=SECONDS)
    said = publish("release", str(job.id)).get(timeout=SECONDS)

    assert outcome.value == "static"
    assert outcome.level == Level.STATIC
    assert outcome.reason == "AttemptTimeoutError"
    assert job.get(timeout=SECONDS).value == "static"
    by_thread: dict[int, list[tuple[str, str | None]]] = {}
    for name, thread, state in said["signals"]:
        by_thread.setdefault(thread, []).append((name, state))
    assert all([name for name, _ in one] == ["prerun", "postrun"] for one in by_thread.values())
    assert sum(state == "SUCCESS" for one in by_thread.values() for _, state in one) == 1
    wait_until(lambda: not connections_in_use(), SECONDS, "all connections are given back")
