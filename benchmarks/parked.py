"""How fast jobs that failed are kept and published again.

A park is all that a worker's child does with a job that fails, from the message's arguments on: the
row is on disk when it ends. Two children park at once. A relay publishes what is due, while the
queue is emptied as quick workers would. The memory of 100,000 parked jobs: `parked_memory`.
"""

import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from time import perf_counter
from typing import Any
from uuid import uuid4

from celery import Celery
from celery.app.trace import build_tracer

from benchmarks.breaker_processes import FORK, WAIT_SECONDS, collect, forked
from benchmarks.figure import Figure
from benchmarks.parked_app import QUEUE, copies, make_app
from benchmarks.parked_memory import measure_worker
from resilience.ledger import Ledger, State, Which
from resilience.tasks.envelope import JOB_HEADER
from resilience.testing.postgres import PostgresProcess
from resilience.testing.valkey import ValkeyProcess
from resilience.worker.relay import Relay

CHILDREN = 2
PARK_MS = 1.0
"""1,000 a second."""
RELAY_MS = 0.25
"""4,000 a second."""
REPLAY_MS = 1.0
"""1,000 a second."""
WARM_UP = 50
DRAIN_SECONDS = 0.02


def run(*, quick: bool) -> Iterator[Figure]:
    """Measure; *quick* takes fewer jobs."""
    parks, published = (1500, 6000) if quick else (10_000, 30_000)
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="benchmark-")))
        home.chmod(0o755)  # the user who runs PostgreSQL must reach a directory in it
        broker = ValkeyProcess(home / "valkey")
        broker.start()
        stack.callback(broker.stop)
        (home / "postgres").mkdir()
        postgres = PostgresProcess(home / "postgres")
        postgres.start()
        stack.callback(postgres.stop)
        urls = {
            "sqlite": f"sqlite:///{home / 'ledger.sqlite3'}",
            "postgresql": postgres.new_database(),
        }
        for name, url in urls.items():
            app = make_app(broker.url, url)
            ledger: Ledger = app.resilience.ledger  # type: ignore[attr-defined]
            ledger.upgrade()
            yield _rate(f"park_{name}", _park(app, parks), parks, PARK_MS)
            yield _rate(f"relay_{name}", _publish(app, broker, published), published, RELAY_MS)
            letters = parks // 10
            yield _rate(f"replay_{name}", _replay(app, letters), letters, REPLAY_MS)
            ledger.close()
            app.close()
        yield from measure_worker(broker, home, quick=quick)


def _rate(name: str, seconds: float, jobs: int, bound: float) -> Figure:
    sides = {"jobs": jobs, "per_second": round(jobs / seconds)}
    return Figure(name=name, value=1000 * seconds / jobs, unit="ms/job", bound=bound, sides=sides)


def _park(app: Celery, jobs: int) -> float:
    """Return the seconds in which two children have parked *jobs*.

    Raises:
        RuntimeError: One of them is not in the ledger.
    """
    start, results = FORK.Barrier(CHILDREN + 1), FORK.Queue()
    app.resilience.ledger.close()  # type: ignore[attr-defined]
    with forked(CHILDREN, _fail_often, app, jobs // CHILDREN, start, results):
        start.wait(WAIT_SECONDS)
        began = perf_counter()
        collect(results, CHILDREN)
        seconds = perf_counter() - began
    _must_be(app, State.SCHEDULED, jobs + CHILDREN * WARM_UP)
    return seconds


def _fail_often(_number: int, app: Celery, jobs: int, start: Any, results: Any) -> None:  # noqa: ANN401 - of processes
    """Run jobs as a child of a prefork pool does."""
    task: Any = app.tasks["fail"]
    trace: Any = build_tracer(task.name, task, app=app)

    def fail(number: int) -> None:
        request = {
            "id": uuid4().hex,
            "headers": {JOB_HEADER: {"born": 0.0}},
            "delivery_info": {"exchange": "", "routing_key": QUEUE},
            "argsrepr": f"({number},)",
            "kwargsrepr": "{}",
        }
        trace(request["id"], (number,), {}, request)

    for number in range(WARM_UP):
        fail(number)
    start.wait(WAIT_SECONDS)
    for number in range(jobs):
        fail(number)
    results.put(jobs)


def _replay(app: Celery, letters: int) -> float:
    """Return the seconds in which *letters* dead letters are scheduled again, not due for long.

    Raises:
        RuntimeError: One of them was not replayed.
    """
    ledger: Ledger = app.resilience.ledger  # type: ignore[attr-defined]
    for job in copies(app, letters):
        ledger.bury(job, reason="benchmark", error=ConnectionError("down"))
    began = perf_counter()
    replayed = ledger.letters.replay(
        Which(),
        actor="benchmark",
        reason="to be replayed",
        new_id=lambda: uuid4().hex,
        limit=letters,
        interval_seconds=WAIT_SECONDS,
    )
    seconds = perf_counter() - began
    if len(replayed) != letters:
        msg = f"{len(replayed)} letters were replayed, not {letters}"
        raise RuntimeError(msg)
    return seconds


def _publish(app: Celery, broker: ValkeyProcess, jobs: int) -> float:
    """Return the seconds in which one relay publishes *jobs* that are due.

    Raises:
        RuntimeError: One of them was not published.
    """
    resilience: Any = app.resilience  # type: ignore[attr-defined]
    resilience.ledger.add(copies(app, jobs), delay_seconds=0.0)
    relay = Relay(resilience)
    with _emptied(broker, f"{QUEUE}.retry"):
        began = perf_counter()
        while not relay.look():
            continue
        seconds = perf_counter() - began
    _must_be(app, State.DISPATCHED, jobs)
    return seconds


@contextmanager
def _emptied(broker: ValkeyProcess, queue: str) -> Iterator[None]:
    """Take away all that comes into *queue*, as quick workers would."""
    done = threading.Event()

    def empty() -> None:
        while not done.wait(DRAIN_SECONDS):
            broker.client().delete(queue)

    thread = threading.Thread(target=empty)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _must_be(app: Celery, state: State, jobs: int) -> None:
    found = sum(
        count.jobs
        for count in app.resilience.ledger.counts(limit=None)  # type: ignore[attr-defined]
        if count.state is state
    )
    if found != jobs:
        msg = f"{found} jobs are {state}, not {jobs}"
        raise RuntimeError(msg)
