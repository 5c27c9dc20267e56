"""What becomes of jobs whose workers are killed, beside plain Celery.

On Redis, then on RabbitMQ. Two workers take jobs of 50 to 200 ms. One after the other, the whole
process group of a worker is killed and started again, as a supervisor would. A third worker, which
lives, has a job that takes far longer than a visibility timeout. The jobs say themselves, on disk,
when they begin and end. Plain Celery then gets the same jobs and kills, and as much time as ours
needed.
"""

import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from random import Random
from threading import Event
from typing import Any

from celery import Celery

from benchmarks.crash_app import LONG_QUEUE, OURS, QUEUE, make_app
from benchmarks.crash_brokers import Broker, rabbitmq_broker, redis_broker
from benchmarks.diary import Diary
from benchmarks.figure import Figure
from resilience.clock import SystemClock
from resilience.testing.rabbitmq import find_program
from resilience.testing.stack import WorkerProcess, run_worker
from resilience.testing.waiting import wait_until

RESTART_SECONDS = 1.5
JOB_SECONDS = (0.05, 0.2)
WORKERS = 2
CHILDREN = 2
LONG_CHILDREN = 8
"""So many, that each further delivery of the long job could begin at once."""
PAUSE_SECONDS = (0.2, 1.0)
"""From the publication of a share of the jobs to the kill."""
UP_SECONDS = 3.0
"""A worker that has just connected declares nobody dead for 2.5 s: others may be on their way."""
BUSY_SECONDS = 2.0
END_SECONDS = 240.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What a side gets to do, how often a worker is killed meanwhile, and how many sides there are.

    Attributes:
        jobs: How many, besides the long one.
        kills: Of whole workers.
        long_seconds: How long the long job takes; the visibility timeout of Redis is five seconds.
        plain: How many of the plain sides have their turn.
    """

    jobs: int
    kills: int
    long_seconds: float
    plain: int


FULL = Load(jobs=500, kills=5, long_seconds=30.0, plain=3)
QUICK = Load(jobs=100, kills=2, long_seconds=8.0, plain=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kill:
    """The end of a worker and all its children.

    Attributes:
        at: When they were sent the signal (CLOCK_MONOTONIC).
        pids: Of the children.
    """

    at: float
    pids: frozenset[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fate:
    """What became of the jobs of one side.

    Attributes:
        done: Jobs that were done, the long one among them.
        lost: Jobs that were not done in time.
        duplicated: Jobs that were done more than once.
        interrupted: Jobs that a kill met.
        never_again: Of those, jobs that did not begin again in time.
        slowest_restart_seconds: From a kill to the next beginning of a job that it met.
        long_job_runs: How often the long job was begun.
        seconds: How long the side had.
    """

    done: int
    lost: int
    duplicated: int
    interrupted: int
    never_again: int
    slowest_restart_seconds: float
    long_job_runs: int
    seconds: float


def run(*, quick: bool) -> Iterator[Figure]:
    """Measure on both brokers; *quick* takes fewer jobs and kills, and ours alone."""
    yield from on_redis(quick=quick)
    yield from on_rabbitmq(quick=quick)


def on_redis(*, quick: bool) -> Iterator[Figure]:
    """Measure on Redis."""
    with redis_broker() as broker:
        yield from _figures(broker, QUICK if quick else FULL)


def on_rabbitmq(*, quick: bool) -> Iterator[Figure]:
    """Measure on RabbitMQ, if this machine has one."""
    if find_program() is None:
        print("no RabbitMQ is installed here: nothing was measured on it", file=sys.stderr)
        return
    with rabbitmq_broker() as broker:
        yield from _figures(broker, QUICK if quick else FULL)


def _figures(broker: Broker, load: Load) -> Iterator[Figure]:
    ours = _measure(broker, OURS, load, None)
    if not ours.interrupted:
        msg = "no kill met a job: nothing was measured"
        raise RuntimeError(msg)
    beside = {
        style: asdict(_measure(broker, style, load, ours.seconds))
        for style in broker.plain[: load.plain]
    }
    what = {**asdict(load), "plain": len(beside), OURS: asdict(ours), **beside}
    name = f"crash_{broker.name}"
    yield Figure(name=f"{name}_lost", value=ours.lost, unit="count", bound=0, sides=what)
    yield Figure(
        name=f"{name}_slowest_restart",
        value=ours.slowest_restart_seconds if not ours.never_again else ours.seconds,
        unit="s",
        bound=RESTART_SECONDS,
        sides={"interrupted": ours.interrupted, "never_again": ours.never_again},
    )
    runs = ours.long_job_runs
    yield Figure(
        name=f"{name}_long_job_runs",
        value=runs,
        unit="count",
        bound=1,
        sides={style: fate["long_job_runs"] for style, fate in beside.items()},
    )
    yield Figure(
        name=f"{name}_duplicated",
        value=ours.duplicated,
        unit="count",
        bound=None,
        sides={style: fate["duplicated"] for style, fate in beside.items()},
    )


def _measure(broker: Broker, style: str, load: Load, seconds: float | None) -> Fate:
    """Return what became of the jobs on *style*.

    Args:
        broker: Is emptied first.
        style: `OURS` or one of `PLAIN`.
        load: What there is to do.
        seconds: How long it has; None: until all is done, or has taken far too long.
    """
    broker.flush()
    with tempfile.TemporaryDirectory(prefix="benchmark-") as directory, ExitStack() as stack:
        home = Path(directory)
        diary, clock = Diary(home / "diary", durable=True), SystemClock()
        env = {
            "BENCHMARK_STYLE": style,
            "BENCHMARK_URL": broker.url,
            "BENCHMARK_STORE_URL": broker.store_url,
            "BENCHMARK_HOME": str(home),
        }
        places = {QUEUE: CHILDREN, LONG_QUEUE: LONG_CHILDREN}
        queues = [QUEUE] * WORKERS + [LONG_QUEUE]
        with ThreadPoolExecutor() as threads:
            started = threads.map(lambda name: _worker(stack, name, places[name], env), queues)
            *workers, _ = started
        Event().wait(UP_SECONDS)
        began = clock.monotonic()
        app = make_app(style, broker.url, broker.store_url, home)
        stack.callback(app.close)
        kills = list(_publish_and_kill(app, workers, diary, load))
        numbers = range(load.jobs + 1)

        def over() -> bool:
            if seconds is not None:
                return clock.monotonic() - began >= seconds
            all_done = {line["job"] for line in diary.read() if line["what"] == "done"}
            return len(all_done) == len(numbers) or clock.monotonic() - began >= END_SECONDS

        wait_until(over, 2 * END_SECONDS, "the time is up")
        took = clock.monotonic() - began
        lines = diary.read()
    return judge(lines, kills, jobs=load.jobs, seconds=took)


def _worker(stack: ExitStack, queue: str, children: int, env: dict[str, str]) -> WorkerProcess:
    worker = stack.enter_context(
        run_worker(
            "benchmarks.crash_worker",
            queues=[queue],
            concurrency=children,
            env=env,
            loglevel="ERROR",
        )
    )
    stack.callback(worker.kill)
    return worker


def _publish_and_kill(
    app: Celery[Any], workers: Sequence[WorkerProcess], diary: Diary, load: Load
) -> Iterator[Kill]:
    """Publish the jobs, a share of them before each kill; the long one has the highest number."""
    dice = Random(1)  # noqa: S311 - durations and moments, no secrets
    app.tasks["work_long"].apply_async((load.jobs, load.long_seconds))
    for turn in range(load.kills):
        for number in range(load.jobs)[turn :: load.kills]:
            app.tasks["work"].apply_async((number, dice.uniform(*JOB_SECONDS)))
        worker = workers[turn % len(workers)]
        Event().wait(dice.uniform(*PAUSE_SECONDS))
        children = frozenset(worker.children())
        with suppress(AssertionError):  # then the kill meets a worker without a job
            wait_until(partial(_busy, diary, children), BUSY_SECONDS, "it has a job")
        at = SystemClock.monotonic()
        worker.kill()
        yield Kill(at=at, pids=children)
        worker.start()


def _busy(diary: Diary, pids: frozenset[int]) -> bool:
    """Tell whether one of these processes has begun a job and not ended it."""
    last = {line["pid"]: line["what"] for line in diary.read()}
    return any(last.get(pid) == "begun" for pid in pids)


def judge(
    diary: Sequence[dict[str, Any]], kills: Sequence[Kill], *, jobs: int, seconds: float
) -> Fate:
    """Return what became of jobs 0 … *jobs*, of which the last one is the long one."""
    done = Counter(line["job"] for line in diary if line["what"] == "done")
    begun = [line for line in diary if line["what"] == "begun"]
    ended = {(line["job"], line["pid"]) for line in diary if line["what"] == "done"}
    waits: list[float | None] = []
    for kill in kills:
        met = [
            line["job"]
            for line in begun
            if line["pid"] in kill.pids and (line["job"], line["pid"]) not in ended
        ]
        for job in met:
            again = [
                line["at"]
                for line in begun
                if line["job"] == job and line["at"] > kill.at and line["pid"] not in kill.pids
            ]
            waits.append(min(again) - kill.at if again else None)
    return Fate(
        done=len(done),
        lost=jobs + 1 - len(done),
        duplicated=sum(times > 1 for times in done.values()),
        interrupted=len(waits),
        never_again=sum(wait is None for wait in waits),
        slowest_restart_seconds=round(max((w for w in waits if w is not None), default=0.0), 2),
        long_job_runs=sum(line["job"] == jobs for line in begun),
        seconds=round(seconds, 1),
    )
