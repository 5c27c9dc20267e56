"""A worker on a machine where another user has planted files for it to write to."""

import json
import os
from pathlib import Path

import pytest

from resilience.testing.stack import run_worker
from resilience.testing.valkey import ValkeyProcess
from resilience.testing.waiting import wait_until
from resilience.worker import probe
from tests.integration.apps import health
from tests.planting import as_nobody, needs_root, shared_directory

SECONDS = 120.0
NODE = "mail@here"

pytestmark = needs_root


@pytest.mark.parametrize("planted", ["directory", "file"])
def test_worker_writes_through_no_link_of_another_user(
    valkey: ValkeyProcess, tmp_path: Path, planted: str
) -> None:
    """It goes without a mark and says why, or puts its own in place of the link; jobs run on."""
    victim = tmp_path / "victim"
    with shared_directory() as shared:
        directory = shared / "runtime"
        path = probe.mark_path(directory, NODE, app="health", namespace="resilience")
        if planted == "directory":
            victim.mkdir()
            as_nobody("ln", "-s", victim, directory)
        else:
            victim.write_text("mine")
            directory.mkdir()
            directory.chmod(0o777)
            as_nobody("ln", "-s", victim, path.with_suffix(".new"))
            as_nobody("ln", "-s", victim, path)
        env = {"CELERY_BROKER_URL": valkey.url, probe.DIRECTORY_VARIABLE: str(directory)}
        with run_worker(
            health.__name__, queues=["mail"], pool="solo", env=env, hostname=NODE
        ) as worker:
            if planted == "directory":
                said = f"no probe will find this worker: {directory} is a link or a file"
                told = wait_until(
                    lambda: said in worker.log or any(victim.iterdir()), SECONDS, "it says why"
                )
                assert told
                assert list(victim.iterdir()) == []
            else:
                wait_until(lambda: not path.is_symlink(), SECONDS, "the mark is the worker's")
                assert json.loads(path.read_bytes())["node"] == NODE
                assert (path.stat().st_mode & 0o777, path.stat().st_uid) == (0o600, os.geteuid())
                assert victim.read_text() == "mine"
            worker.kill()
