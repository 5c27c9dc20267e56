"""What 10,000 jobs of a dependency that holds go through while it is down for 30 s.

Their circuit is open before the first is published, as other callers saw the dependency fail. Two
workers stand by. Afterwards: no attempt was spent (the ledger heard of no job), no job left its
queue but those that went ahead as probes and one for each worker that had not heard yet how they
ended (the broker counts), each was done once, and the dependency never saw more calls at once than
the ramp of both workers together allows.
"""

import os
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from time import perf_counter
from typing import Any

from benchmarks import hold_app
from benchmarks.figure import Figure
from benchmarks.hold_app import CALLS, CONCURRENCY, DONE, DOWN, QUEUE, WORKERS
from benchmarks.hold_brokers import Broker, rabbitmq_broker, redis_broker
from resilience.breaker import State
from resilience.clock import SystemClock
from resilience.testing.rabbitmq import find_program
from resilience.testing.stack import run_worker
from resilience.testing.valkey import ValkeyProcess

LOOK_SECONDS = 0.2
ROUND_SECONDS = 0.5
"""Probes of one round are closer than this; an open circuit refuses for longer."""
PROBE_SECONDS = 60.0
DONE_SECONDS = 180.0
GROWTH = 1.5
"""The most by which the jobs at once of a worker may grow in a second."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """How much there is to do, and what is ok.

    Attributes:
        jobs: How many.
        down_seconds: How long the dependency is down.
        rounds: Most rounds of probes meanwhile: the circuit stays open for three seconds at most.
        in_vain: Most messages that a broker hands out to no avail meanwhile: a worker takes one
            more in each round, until it hears that the circuit is open again.
        recovered_seconds: Until all is done, once the dependency is back.
    """

    jobs: int
    down_seconds: float
    rounds: int
    in_vain: int
    recovered_seconds: float


FULL = Load(jobs=10_000, down_seconds=30.0, rounds=14, in_vain=28, recovered_seconds=60.0)
QUICK = Load(jobs=1000, down_seconds=8.0, rounds=6, in_vain=12, recovered_seconds=20.0)
FIRST_SECONDS = 5.0
"""From the dependency's return to the first call: an open circuit waits for three."""


def run(*, quick: bool) -> Iterator[Figure]:
    """Measure on both brokers; *quick* takes 1,000 jobs and 8 s, and Redis alone."""
    yield from on_redis(quick=quick)
    if not quick:
        yield from on_rabbitmq(quick=quick)


def on_redis(*, quick: bool) -> Iterator[Figure]:
    """Measure on Redis."""
    yield from _figures("hold_redis", redis_broker, quick=quick)


def on_rabbitmq(*, quick: bool) -> Iterator[Figure]:
    """Measure on RabbitMQ, if this machine has one."""
    if find_program() is None:
        print("no RabbitMQ is installed here: nothing was measured on it", file=sys.stderr)
        return
    yield from _figures("hold_rabbitmq", rabbitmq_broker, quick=quick)


def _figures(name: str, kind: Callable[[Path], Broker], *, quick: bool) -> Iterator[Figure]:
    load = QUICK if quick else FULL
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="benchmark-")))
        broker, desk = kind(home / "broker"), ValkeyProcess(home / "desk")
        for server in (broker.server, desk):
            server.start()
            stack.callback(server.stop)
        env = {
            "BROKER_URL": broker.url,
            "DESK_URL": desk.url,
            "LEDGER_URL": f"sqlite:///{home / 'ledger.sqlite3'}",
        }
        os.environ.update(env)  # noqa: TID251 - of this entry point, for the app
        app = hold_app.make_app()
        ledger = app.resilience.ledger  # type: ignore[attr-defined]
        ledger.upgrade()
        _break_down(app)
        for _ in range(WORKERS):
            worker = stack.enter_context(
                run_worker(
                    "benchmarks.hold_worker",
                    queues=[QUEUE, f"{QUEUE}.retry"],
                    concurrency=CONCURRENCY,
                    env=env,
                    loglevel="ERROR",
                )
            )
            stack.callback(worker.kill)
        yield from _measure(name, app, broker.count(), load)
        ledger.close()
        app.close()


def _break_down(app: Any) -> None:  # noqa: ANN401 - adopted
    hold_app.desk().set(DOWN, 1)
    breaker = app.resilience.breaker(QUEUE)
    while breaker.state is not State.OPEN:
        breaker.record_failure(ConnectionError("down"))


def _measure(
    name: str,
    app: Any,  # noqa: ANN401 - adopted
    taken: Callable[[], int],
    load: Load,
) -> Iterator[Figure]:
    desk, began = hold_app.desk(), perf_counter()
    for number in range(load.jobs):
        app.tasks["call"].delay(number)
    parked, pause = 0, threading.Event()
    while (waited := perf_counter() - began) < load.down_seconds or not _probed(desk):
        if waited > load.down_seconds + PROBE_SECONDS:
            msg = "no worker has probed the dependency: nothing was measured"
            raise RuntimeError(msg)
        pause.wait(LOOK_SECONDS)
        parked = max(parked, _known(app))
    out = taken()
    probes = _calls(desk)
    desk.delete(DOWN)
    back = perf_counter()
    back_at = SystemClock.monotonic()
    while desk.hlen(DONE) < load.jobs and perf_counter() - back < DONE_SECONDS:
        pause.wait(LOOK_SECONDS)
        parked = max(parked, _known(app))
    seconds = perf_counter() - back
    runs = [int(times) for times in desk.hvals(DONE)]
    calls = _calls(desk)[len(probes) :]
    first = calls[0][0]
    over = [at_once / _allowed(when - first) for when, at_once, _ in calls if at_once > WORKERS]
    rounds = _rounds([when for when, *_ in probes])
    sides = {"jobs": load.jobs, "down_seconds": load.down_seconds, "probes": len(probes)}
    yield Figure(name=f"{name}_attempts_spent", value=parked, unit="jobs", bound=0, sides=sides)
    yield Figure(name=f"{name}_probe_rounds", value=rounds, unit="rounds", bound=load.rounds)
    yield Figure(
        name=f"{name}_messages_taken_in_vain",
        value=out - len(probes),
        unit="messages",
        bound=load.in_vain,
        sides={"while_down": True, "taken": out},
    )
    yield Figure(name=f"{name}_not_done", value=load.jobs - len(runs), unit="jobs", bound=0)
    yield Figure(name=f"{name}_done_twice", value=sum(runs) - len(runs), unit="jobs", bound=0)
    yield Figure(
        name=f"{name}_calls_over_the_ramp",
        value=max(over, default=0.0),
        unit="ratio",
        bound=1.0,
        sides={"most_at_once": max(one[1] for one in calls), "full": WORKERS * CONCURRENCY},
    )
    yield Figure(name=f"{name}_first_call", value=first - back_at, unit="s", bound=FIRST_SECONDS)
    yield Figure(name=f"{name}_recovered", value=seconds, unit="s", bound=load.recovered_seconds)


def _probed(desk: Any) -> bool:  # noqa: ANN401 - a client
    return bool(desk.llen(CALLS))


def _calls(desk: Any) -> list[tuple[float, int, int]]:  # noqa: ANN401 - a client
    """Return the calls so far: when, how many at once, of which job."""
    found = [line.split() for line in desk.lrange(CALLS, 0, -1)]
    return [(float(when), int(at_once), int(number)) for when, at_once, number in found]


def _rounds(moments: list[float]) -> int:
    """Return in how many rounds the probes at these *moments* came: the circuit opens between."""
    return 1 + sum(after - before > ROUND_SECONDS for before, after in pairwise(moments))


def _known(app: Any) -> int:  # noqa: ANN401 - adopted
    """Return how many jobs the ledger knows."""
    return sum(count.jobs for count in app.resilience.ledger.counts(limit=None))


def _allowed(seconds: float) -> int:
    """Return the calls at once that the ramps of all workers, begun so long ago, allow."""
    return WORKERS * min(CONCURRENCY, max(1, int(GROWTH**seconds)))
