"""Drills of fallback chains in real workers: when they run, and where their findings are shown."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import pytest

from resilience import Level
from resilience.monitor.drills import drill_rows
from resilience.testing.plugin import running_valkey
from resilience.testing.process import import_path, inherited_env
from resilience.testing.stack import WorkerProcess, run_worker
from resilience.testing.valkey import ValkeyProcess
from resilience.testing.waiting import wait_until
from tests.brokers import running_broker
from tests.fresh import imported_anew

APP_PATH = "tests.integration.apps.drills"
SECONDS = 60.0
JOBS = 120
"""The one process of the pool runs more than 100 of them, which is 1 / share."""


@dataclass
class Stage:
    """The app in this process, and a worker of each pool that is used, with its own queue."""

    module: ModuleType
    store: ValkeyProcess
    env: Mapping[str, str]
    running: ExitStack
    workers: dict[str, WorkerProcess] = field(default_factory=dict)

    def served(self, pool: str) -> str:
        """Return the queue of a worker of *pool*, which runs from now on."""
        if pool not in self.workers:
            worker = run_worker(APP_PATH, queues=[pool], concurrency=1, pool=pool, env=self.env)
            self.workers[pool] = self.running.enter_context(worker)
        return pool

    def row(self, task: str) -> dict[str, Any]:
        """Return what the drills of a task have found."""
        [row] = [one for one in drill_rows(self.module.resilience) if one["task"] == task]
        return row

    def run_jobs(self, first: int) -> None:
        """Let the prefork worker answer users that nobody has asked for before."""
        recommend = self.module.recommend
        users = range(first, first + JOBS)
        queue = self.served("prefork")
        results = [recommend.apply_async((user,), queue=queue) for user in users]
        levels = {result.get(timeout=SECONDS).level for result in results}
        assert levels == {Level.FULL}

    def status(self, *options: str) -> subprocess.CompletedProcess[str]:
        """Run `resilience status` in a process of its own."""
        command = ["-m", "celery", "-A", APP_PATH, "resilience", "status", *options]
        return subprocess.run(  # noqa: S603 - our own command
            [sys.executable, *command],
            env=inherited_env({**self.env, "PYTHONPATH": import_path()}),
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Servers, and the app."""
    with ExitStack() as running:
        store = running.enter_context(running_valkey(tmp_path_factory))
        broker = running.enter_context(running_broker(tmp_path_factory))
        path = tmp_path_factory.mktemp("drills")
        env = {
            "CELERY_BROKER_URL": broker.url,
            "CELERY_RESULT_BACKEND": store.url,
            "RESILIENCE_STORE_URL": store.url,
            "RESILIENCE_STORE_TIMEOUT_SECONDS": "5",
            "RESILIENCE_LEDGER_URL": f"sqlite:///{path}/ledger.sqlite3",
        }
        patch = running.enter_context(pytest.MonkeyPatch.context())
        for name, value in env.items():
            patch.setenv(name, value)
        module = imported_anew(patch, APP_PATH)
        made = Stage(module, store, env, running)
        yield made
        for worker in made.workers.values():
            worker.kill()  # how they shut down is no matter here


@pytest.mark.parametrize(
    "pool", ["prefork", "threads", "solo", pytest.param("gevent", marks=pytest.mark.long)]
)
def test_result_of_a_job_does_not_wait_for_its_drill(stage: Stage, pool: str) -> None:
    """It can be had while a step of the chain still hangs; then the drill is counted."""
    client, before = stage.store.client(), stage.row("drills.rank")["drills"]

    answer = stage.module.rank.apply_async(queue=stage.served(pool)).get(timeout=SECONDS)

    assert (answer.value, answer.level) == ("ranked", Level.FULL)
    assert client.blpop([stage.module.BEGUN], timeout=SECONDS)
    assert stage.row("drills.rank")["drills"] == before
    client.rpush(stage.module.GO, 1)
    wait_until(
        lambda: stage.row("drills.rank")["answered"] == before + 1, SECONDS, "the drill is counted"
    )


def test_calls_of_a_pipeline_in_a_plain_job_are_drilled_at_its_end(stage: Stage) -> None:
    """So no drill outlives the job; what is no task of the app is counted as other."""
    job = stage.module.plain.apply_async((7,), queue=stage.served("prefork"))
    assert job.get(timeout=SECONDS) == [7]

    def drilled() -> bool:
        rows = drill_rows(stage.module.resilience)
        return any(one["task"] == "other" and one["answered"] == 1 for one in rows)

    wait_until(drilled, SECONDS, "the drill is counted")


def test_status_shows_a_list_that_expired_within_1_000_full_answers(stage: Stage) -> None:
    """First that the chain is in order, then who needs to see to it, and why."""
    answers, task = stage.module.resilience.answers, "drills.recommend"
    answers.remember(stage.module.POPULAR, [744], max_age=600)
    stage.run_jobs(0)
    wait_until(lambda: stage.row(task)["drills"], SECONDS, "a drill is counted")
    row = stage.row(task)
    assert (row["dependency"], row["share"]) == ("catalogue", 0.01)
    assert (row["answered"], row["worst"], row["failed_at"]) == (row["drills"], "STATIC", None)
    assert row["last"]["source"] == "cached:popular"
    assert re.search(
        rf"^drill {task}: last \d+s ago, 100% of \d+ would", stage.status().stdout, re.MULTILINE
    )

    stage.store.client().delete(answers.key(stage.module.POPULAR))  # as if it had expired
    stage.run_jobs(JOBS)
    wait_until(lambda: stage.row(task)["failed_at"], SECONDS, "a drill has found it")

    done = stage.status("--json")
    report = json.loads(done.stdout)
    [note] = [one for one in report["notes"] if one["kind"] == "drill"]
    assert (note["name"], note["level"], note["users"]) == (task, None, None)
    assert "no fallback would have answered (1. stale: NoStoredAnswerError" in note["why"]
    assert (report["verdict"], done.returncode) == ("well", 0)
    assert f"note {task}: its last drill found" in stage.status().stdout
