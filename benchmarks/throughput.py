"""How fast jobs that do nothing are published and consumed, beside plain Celery.

Each side has a client and a prefork worker with two children, in processes of their own; those of
the plain side never import this library. Both have the same guarantees: a job is acknowledged after
it has run; on RabbitMQ queues are quorum queues, and the broker confirms what is published. A queue
is filled while its worker is stopped, and then consumed. Sides take turns.
"""

import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from statistics import median

from benchmarks.client import DEPENDENCY, PLAIN, STOCK
from benchmarks.figure import Figure, paired_ratio
from benchmarks.sides import Side
from resilience import Dependency
from resilience.testing.postgres import PostgresProcess
from resilience.testing.rabbitmq import RabbitProcess, find_program
from resilience.testing.valkey import ValkeyProcess

BOUNDS: Mapping[str, float | None] = {
    "redis_adopted_plain": None,
    "redis_dependency": 1.0,
    "redis_fallback": 0.99,
    "redis_idempotent": 0.75,
    "redis_idempotent_postgresql": 0.7,
    "redis_fire": None,
    "rabbitmq_adopted_plain": None,
    "rabbitmq_dependency": 0.95,
    "rabbitmq_fallback": None,
    "rabbitmq_idempotent": None,
    "rabbitmq_fire": None,
}
"""Least ratio of jobs consumed per second to those of plain Celery; None: for information."""
PUBLISH_BOUND = 0.97
"""Least ratio of jobs published per second, for tasks with a dependency."""
QUICK = ("redis_dependency", "redis_fallback", "redis_idempotent", "rabbitmq_dependency")
TURNS, UNBOUNDED_TURNS, QUICK_TURNS = 20, 8, 4
WARM_UP = 100


def run(*, quick: bool) -> Iterator[Figure]:
    """Measure; *quick* takes few turns, and leaves out most of the sides."""
    names = QUICK if quick else BOUNDS
    jobs = 200 if quick else 400
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="benchmark-")))
        home.chmod(0o755)  # the user who runs PostgreSQL must reach a directory in it
        store = ValkeyProcess(home / "valkey")
        store.start()
        stack.callback(store.kill)
        urls = {"redis": store.url}
        if find_program() is None:
            print("RabbitMQ is not installed: nothing is measured on it", file=sys.stderr)
        else:
            rabbit = RabbitProcess(home / "rabbit")
            rabbit.start()
            stack.callback(rabbit.kill)
            urls["rabbitmq"] = rabbit.url
        for broker, url in urls.items():
            env = {"BENCHMARK_BROKER": url}
            plain = Side("benchmarks.stock", queues=[STOCK], env=env, home=home / broker)
            with plain.running():
                plain.stop()
                for name in names:
                    if name.startswith(broker):
                        turns = UNBOUNDED_TURNS if BOUNDS[name] is None else TURNS
                        rounds = QUICK_TURNS if quick else turns
                        yield from _compared(name, plain, store, home, rounds, jobs)


def _compared(
    name: str, plain: Side, store: ValkeyProcess, home: Path, rounds: int, jobs: int
) -> Iterator[Figure]:
    """Compare *plain* with the side *name*: a broker, a style of the task, maybe a ledger."""
    style = name.split("_", 1)[1].removesuffix("_postgresql")
    with ExitStack() as stack:
        ledger = f"sqlite:///{home / name}.sqlite3"
        if name.endswith("postgresql"):
            (home / "postgres").mkdir()
            postgres = PostgresProcess(home / "postgres")
            postgres.start()
            stack.callback(postgres.stop)
            ledger = postgres.url
        env = {
            "BENCHMARK_BROKER": plain.env["BENCHMARK_BROKER"],
            "BENCHMARK_STORE": f"{store.url.removesuffix('0')}1",  # beside a broker in database 0
            "BENCHMARK_LEDGER": ledger,
            "BENCHMARK_NAMESPACE": name,
            "BENCHMARK_STYLE": style,
        }
        # The queues that `celery resilience worker` would name.
        queues = [PLAIN] if style == "adopted_plain" else Dependency(DEPENDENCY).queues
        ours = Side("benchmarks.throughput_app", queues=queues, env=env, home=home / name)
        stack.enter_context(ours.running())
        ours.stop()
        for side in (plain, ours):
            _turn(side, WARM_UP)
        before = {side: side.cpu_seconds() for side in (plain, ours)}
        turns = [(_turn(plain, jobs), _turn(ours, jobs)) for _ in range(rounds)]
        cpu = {
            side: [
                round((now - then) / rounds / jobs * 1e6)
                for then, now in zip(before[side], side.cpu_seconds(), strict=True)
            ]
            for side in (plain, ours)
        }
    published, in_ledger, consumed = (
        [(theirs[at], of_ours[at]) for theirs, of_ours in turns] for at in range(3)
    )
    sides = {"main_and_children_cpu_us": cpu[ours], "plain_cpu_us": cpu[plain]}
    yield _ratio(f"consume_{name}", consumed, jobs, BOUNDS[name], sides)
    bound = PUBLISH_BOUND if style == "dependency" else None
    outbox = {"to_outbox": round(sum(of_ours for _, of_ours in in_ledger))}
    yield _ratio(f"publish_{name}", published, jobs, bound, outbox)


def _turn(side: Side, jobs: int) -> tuple[float, float, float]:
    """Return seconds of publishing, jobs then in the ledger, seconds of consuming."""
    return side.ask("publish", jobs), side.ask("kept"), side.consume(jobs)


def _ratio(
    name: str,
    turns: list[tuple[float, float]],
    jobs: int,
    bound: float | None,
    sides: Mapping[str, object],
) -> Figure:
    theirs, ours = zip(*turns, strict=True)
    rates = {
        "jobs_per_second": round(jobs / median(ours)),
        "plain_jobs_per_second": round(jobs / median(theirs)),
    }
    return Figure(
        name=name,
        value=paired_ratio(theirs, ours),
        unit="ratio",
        bound=bound,
        least=True,
        sides={**rates, "turns": len(turns), "jobs": jobs, **sides},
    )
