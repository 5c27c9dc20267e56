"""Publishers that add headers of their own, and put headers into a header called "headers"."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from resilience.testing.plugin import running_valkey
from resilience.testing.process import import_path
from resilience.testing.stack import run_worker
from tests.brokers import running_broker
from tests.compatibility.apps import instruments

APP_PATH = "tests.compatibility.apps.nesting"
QUEUES = ("celery", "users", "mail", "mail.retry")
SECONDS = 120.0
PROMPT_SECONDS = 30.0
"""Well before the budget of 60 s, or the end of a job that sleeps as long: nobody waited for it."""

Told = dict[str, dict[str, Any]]


def told_by(env: dict[str, str], pool: str) -> Told:
    """Let a process publish a job of each kind to a worker, both instrumented; return the ends."""
    with run_worker(APP_PATH, queues=QUEUES, concurrency=2, pool=pool, env=env) as worker:
        done = subprocess.run(  # noqa: S603 - our own module
            [sys.executable, "-m", APP_PATH],
            env={**os.environ, **env},  # noqa: TID251 - what a child inherits
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        assert done.returncode == 0, f"{done.stderr}\n{worker.log_tail()}"
        worker.kill()
    told: Told = json.loads(done.stdout)
    return told


IN_CI = [("nested", "prefork"), ("sentry-2.53", "threads")]
"""Those that hide our headers, one of them a vendor that also wraps tasks and beat."""
OTHERS = [
    ("sentry", "prefork"),
    ("sentry-2.53", "prefork"),
    ("opentelemetry", "prefork"),
]


@pytest.fixture(
    scope="module",
    params=[*IN_CI, *(pytest.param(one, marks=pytest.mark.long) for one in OTHERS)],
    ids="/".join,
)
def told(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Told]:
    """What became of the jobs of apps/nesting.py, under one instrument."""
    name, pool = request.param
    paths = (instruments.path_of(name), import_path())
    ledger_url = f"sqlite:///{tmp_path_factory.mktemp('ledger') / 'ledger.sqlite3'}"
    with running_broker(tmp_path_factory) as broker, running_valkey(tmp_path_factory) as desk:
        yield told_by(
            {
                instruments.INSTRUMENT: name,
                "PYTHONPATH": os.pathsep.join(path for path in paths if path),
                "BROKER_URL": broker.url,
                "DESK_URL": desk.url,
                "LEDGER_URL": ledger_url,
            },
            pool,
        )


def test_parts_answer_their_fan_out_at_once(told: Told) -> None:
    """The child knows that its job is a part: a required one that succeeded is no failure."""
    fan = told["fans_out"]

    assert (fan["data"], fan["level"]) == ({"part0": 1, "part1": 2}, 0)
    assert fan["seconds"] < PROMPT_SECONDS


def test_part_that_is_retried_is_still_a_part(told: Told) -> None:
    """Celery repeats the headers that the child sees: ours are among them."""
    fan = told["retries_a_part"]

    assert (fan["data"], fan["level"]) == ({"part0": "recovered"}, 0)
    assert fan["seconds"] < PROMPT_SECONDS


def test_body_is_cut_at_its_budget(told: Told) -> None:
    """The child knows how much time its job has."""
    assert told["is_cut"]["error"] == "BudgetExceededError"
    assert told["is_cut"]["seconds"] < PROMPT_SECONDS


def test_fallback_answers(told: Told) -> None:
    """Whoever wraps the task's call leaves its pipeline in place."""
    assert told["falls_back"] == {"value": "known", "level": 3}


def test_kept_job_counts_its_attempts(told: Told) -> None:
    """The child knows what the ledger knows: after two failures the job is a dead letter."""
    assert told["gives_up"] == {"attempts": 2, "runs": 2}


def test_job_of_beat_runs(told: Told) -> None:
    """Headers that are added to a beat entry keep a job's budget and its retry."""
    assert told["is_due"] == {"value": "recovered"}
