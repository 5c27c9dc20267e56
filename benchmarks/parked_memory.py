"""What a worker's memory is with 100,000 jobs that wait, and how many it parks a second.

Beside it a plain task's countdown, which Celery keeps in the worker, and the same worker's rate
with plain tasks that do nothing.
"""

from collections.abc import Iterator
from pathlib import Path
from time import perf_counter
from typing import Any

import psutil
from celery import Celery

from benchmarks.figure import Figure
from benchmarks.parked_app import PLAIN_QUEUE, QUEUE, WAIT_SECONDS, copies, make_app
from resilience.ledger import Ledger
from resilience.testing.stack import WorkerProcess, run_worker
from resilience.testing.valkey import ValkeyProcess
from resilience.testing.waiting import wait_until

PARKED = 100_000
MEMORY_MB = 2.0
AT_ONCE = 1000
WARM_UP = 200
SECONDS = 300.0


def measure_worker(broker: ValkeyProcess, home: Path, *, quick: bool) -> Iterator[Figure]:
    """Measure a worker with two children; *quick* takes fewer jobs, and says so."""
    jobs, countdowns = (1000, 5000) if quick else (10_000, PARKED)
    ledger_url = f"sqlite:///{home / 'memory.sqlite3'}"
    app = make_app(broker.url, ledger_url)
    ledger: Ledger = app.resilience.ledger  # type: ignore[attr-defined]
    env = {"BENCHMARK_URL": broker.url, "BENCHMARK_LEDGER_URL": ledger_url}
    options: dict[str, Any] = {"env": env, "concurrency": 2, "loglevel": "ERROR"}
    broker.flush()
    with run_worker("benchmarks.parked_worker", queues=[QUEUE, PLAIN_QUEUE], **options) as worker:
        for name in ("fail", "plain"):
            _consumed(broker, app, name, WARM_UP)
        before = _rss_mb(worker)
        parked = _consumed(broker, app, "fail", jobs)
        for start in range(jobs, PARKED, AT_ONCE):
            rest = min(AT_ONCE, PARKED - start)
            ledger.add(copies(app, rest), delay_seconds=WAIT_SECONDS)
        _consumed(broker, app, "fail", WARM_UP)
        ours = _rss_mb(worker) - before
        plain = _consumed(broker, app, "plain", jobs)
        held = sum(count.jobs for count in ledger.counts(limit=None))
        worker.kill()
    yield Figure(
        name="worker_parks",
        value=1000 * parked / jobs,
        unit="ms/job",
        bound=None,
        sides={
            "per_second": round(jobs / parked),
            "plain_tasks_per_second": round(jobs / plain),
        },
    )
    broker.flush()
    with run_worker("benchmarks.parked_worker", queues=[PLAIN_QUEUE], **options) as worker:
        _consumed(broker, app, "plain", WARM_UP)
        before = _rss_mb(worker)
        _publish(app, "plain", countdowns, countdown=WAIT_SECONDS)
        what = "the worker has taken all"
        wait_until(lambda: broker.client().hlen("unacked") >= countdowns, SECONDS, what)
        theirs = _rss_mb(worker) - before
        worker.kill()
    ledger.close()
    app.close()
    yield Figure(
        name="parked_100000_memory",
        value=ours,
        unit="MB",
        bound=MEMORY_MB,
        sides={
            "parked": held,
            "celery_countdown_mb": round(theirs, 1),
            "celery_countdowns": countdowns,
            "celery_mb_for_100000": round(theirs * PARKED / countdowns),
        },
    )


def _rss_mb(worker: WorkerProcess) -> float:
    """Return what the main process and all its children have in memory."""
    pids = [worker.pid, *worker.children()]
    return sum(psutil.Process(pid).memory_info().rss for pid in pids) / 2**20


def _publish(app: Celery, task: str, jobs: int, **options: Any) -> None:  # noqa: ANN401 - as Celery's
    with app.producer_or_acquire(None) as producer, producer.batch(AT_ONCE):
        for number in range(jobs):
            # As Celery publishes it: `fire` would wait for each.
            app.send_task(task, (number,), producer=producer, **options)


def _consumed(broker: ValkeyProcess, app: Celery, task: str, jobs: int) -> float:
    """Return the seconds from the first to the last of *jobs* calls of *task*."""
    queue, client = QUEUE if task == "fail" else PLAIN_QUEUE, broker.client()
    _publish(app, task, jobs, queue=queue)
    began, left = perf_counter(), client.llen(queue)

    def idle() -> bool:
        return not client.llen(queue) and not client.hlen("unacked")

    wait_until(idle, SECONDS, f"{queue} is empty")
    return (perf_counter() - began) * jobs / max(left, 1)
