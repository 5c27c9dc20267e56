"""The shop's files for production."""

import re
from pathlib import Path

import pytest
from celery import Celery

from jobs.dependencies import DEPENDENCIES
from resilience.cli.commands import worker_programs
from resilience.tasks.resilience import Resilience

ROOT = Path(__file__).parents[2]
WORKER = re.compile(r"celery -A workers\.app resilience worker (\S+)$", re.MULTILINE)


@pytest.mark.parametrize("name", ["Procfile", "docker-compose.yml"])
def test_production_starts_the_workers_that_up_starts(name: str) -> None:
    """No queue is left without a worker: every dependency has one, and so has the default queue."""
    shop = Resilience(Celery("shop", set_as_current=False), dependencies=DEPENDENCIES)

    assert WORKER.findall((ROOT / name).read_text()) == list(worker_programs(shop, [], []))
