"""A worker that is killed takes no job along, and others run what it held within seconds."""

import threading
from contextlib import ExitStack
from pathlib import Path
from random import Random
from secrets import randbits
from typing import Any

import pytest

from benchmarks.diary import Diary
from resilience.clock import SystemClock
from resilience.settings import Settings
from resilience.testing.rabbitmq import RabbitProcess
from resilience.testing.stack import run_worker
from resilience.testing.valkey import ValkeyProcess
from resilience.testing.waiting import wait_until
from tests.brokers import KINDS
from tests.chaos.crash import QUEUE, make_app

pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]

JOBS = 500
KILLS = 5
AGAIN_SECONDS = 7.0
SECONDS = 120.0


@pytest.fixture(params=KINDS)
def url(request: pytest.FixtureRequest, valkey: ValkeyProcess) -> str:
    """The address of an empty broker, of one kind or the other."""
    valkey.flush()
    if request.param == "valkey":
        return valkey.url
    rabbitmq: RabbitProcess = request.getfixturevalue("rabbitmq")
    return rabbitmq.new_url()


def test_killed_workers_lose_no_job(url: str, valkey: ValkeyProcess, tmp_path: Path) -> None:
    """Of 500 jobs, five SIGKILLs of whole workers lose none; what they held soon runs again."""
    seed = randbits(32)
    random = Random(seed)  # noqa: S311 - moments, no secrets
    diary = Diary(tmp_path / "diary", durable=True)
    app = make_app(url, Settings(store_url=valkey.url), diary)
    env = {
        "CELERY_BROKER_URL": url,
        "RESILIENCE_STORE_URL": valkey.url,
        "DIARY": str(tmp_path / "diary"),
    }
    killed: dict[int, float] = {}
    with ExitStack() as stack:
        workers = [
            stack.enter_context(
                run_worker("tests.chaos.crash", queues=[QUEUE], concurrency=4, env=env)
            )
            for _ in range(2)
        ]
        for job in range(JOBS):
            app.tasks["work"].delay(job)
        for _ in range(KILLS):
            threading.Event().wait(random.uniform(0.5, 1.5))
            worker = random.choice(workers)
            killed[worker.pid] = SystemClock.monotonic()
            worker.kill()
            worker.start()
        wait_until(lambda: len(_done(diary)) == JOBS, SECONDS, "all jobs are done")
        for worker in workers:
            worker.kill()
    app.close()

    again = _again(diary.read(), killed)
    repeated = sum(line["what"] == "done" for line in diary.read()) - JOBS
    print(  # noqa: T201 - what `make chaos` is for
        f"\nseed={seed} done={JOBS} lost=0 interrupted={len(again)} done_twice={repeated} "
        f"again_after_seconds={[round(one, 2) for one in sorted(again)]}"
    )
    assert max(again, default=0.0) <= AGAIN_SECONDS


def _done(diary: Diary) -> set[int]:
    return {line["job"] for line in diary.read() if line["what"] == "done"}


def _again(lines: list[dict[str, Any]], killed: dict[int, float]) -> list[float]:
    """Return how many seconds after the kill each job that it interrupted began again."""
    ended = {(line["job"], line["worker"]) for line in lines if line["what"] == "done"}
    begun = [line for line in lines if line["what"] == "begun"]
    waits = []
    for line in begun:
        cut = killed.get(line["worker"])
        if cut is None or (line["job"], line["worker"]) in ended:
            continue
        later = [one["at"] for one in begun if one["job"] == line["job"] and one["at"] > cut]
        waits.append(min(later) - cut)
    return waits
