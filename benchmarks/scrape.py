"""What it costs to count for Prometheus, and to be scraped."""

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

from celery import Celery
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.exposition import generate_latest

from benchmarks.client import DEPENDENCY
from benchmarks.figure import Figure, median_us, paired_ratio
from benchmarks.scale import PULSE_US, TIMES, server_us
from benchmarks.sides import Side
from resilience import Dependency, Level, Resilience, Settings
from resilience.events import AnswerDegraded
from resilience.monitor.objective import Objective
from resilience.monitor.prometheus import PrometheusListener
from resilience.monitor.scrape import expose
from resilience.monitor.tally import BATCH_MAX
from resilience.testing.valkey import ValkeyProcess

TASK_RATIO = 1.05
"""Of the time that a job takes with the listener to that without."""
DEGRADED_US = 50.0
SCRAPE_US = 50_000.0
SCRAPED, PULSED = 50, 200
"""Dependencies of an app that is scraped, and of one whose pulse is measured."""
WARM_UP = 100


def run(*, quick: bool) -> Iterator[Figure]:
    """Measure; *quick* takes few turns."""
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="benchmark-")))
        server = ValkeyProcess(home / "valkey")
        server.start()
        stack.callback(server.kill)
        ledger = f"sqlite:///{home / 'ledger.sqlite3'}"
        yield _tasks(server, home, rounds=4 if quick else 20, jobs=200 if quick else 400)
        server.flush()
        yield from _counting(server, ledger)
        server.flush()
        yield _scrape(server, ledger)


def _adopted(
    server: ValkeyProcess, ledger: str, number: int
) -> tuple[Resilience, PrometheusListener]:
    listener = PrometheusListener(objectives=[Objective(full=0.995)])
    app = Celery("scrape", broker=server.url, set_as_current=False)
    resilience = Resilience(
        app,
        dependencies=[Dependency(f"d{one}", timeout=None) for one in range(number)],
        settings=Settings(store_url=server.url, ledger_url=ledger),
        listeners=[listener],
    )
    return resilience, listener


def _tasks(server: ValkeyProcess, home: Path, *, rounds: int, jobs: int) -> Figure:
    """Compare workers with and without the listener."""
    sides = []
    with ExitStack() as stack:
        for number, name in ((1, "without"), (2, "with")):
            env = {
                "BENCHMARK_BROKER": f"{server.url.removesuffix('0')}{number}",
                "BENCHMARK_STORE": f"{server.url.removesuffix('0')}{number + 2}",
                "BENCHMARK_LEDGER": f"sqlite:///{home / name}.sqlite3",
                "BENCHMARK_NAMESPACE": name,
                "BENCHMARK_LISTENERS": str(number),
            }
            queues = Dependency(DEPENDENCY).queues
            side = Side("benchmarks.scrape_app", queues=queues, env=env, home=home / name)
            stack.enter_context(side.running())
            side.stop()
            sides.append(side)
        for side in sides:
            _turn(side, WARM_UP)
        before = [sum(side.cpu_seconds()) for side in sides]
        turns = [[_turn(side, jobs) for side in sides] for _ in range(rounds)]
        spent = [sum(s.cpu_seconds()) - b for s, b in zip(sides, before, strict=True)]
        cpu = [round(seconds / rounds / jobs * 1e6) for seconds in spent]
    without, with_ = zip(*turns, strict=True)
    return Figure(
        name="scrape_task_time",
        value=paired_ratio(with_, without),
        unit="ratio",
        bound=TASK_RATIO,
        sides={
            "us_with": round(median(with_) / jobs * 1e6),
            "us_without": round(median(without) / jobs * 1e6),
            "cpu_us_with": cpu[1],
            "cpu_us_without": cpu[0],
        },
    )


def _turn(side: Side, jobs: int) -> float:
    side.ask("publish", jobs)
    return side.consume(jobs)


def _counting(server: ValkeyProcess, ledger: str) -> Iterator[Figure]:
    resilience, listener = _adopted(server, ledger, PULSED)
    event = AnswerDegraded(
        call="noop",
        dependency="d0",
        level=Level.STALE,
        reason="CircuitOpenError",
        error="d0 was not called",
        source="stale",
        age=1.0,
    )
    value = median_us(lambda: listener(event), repeats=TIMES, calls=1000)
    yield Figure(name="scrape_degraded_answer", value=value, unit="us", bound=DEGRADED_US)
    tally: Any = listener._tally()  # noqa: SLF001 - no call of a user sends so large a batch
    breakers: list[Any] = [resilience.breaker(f"d{one}") for one in range(PULSED)]

    def pulse(series: int) -> None:
        for breaker in breakers:
            breaker.call(int)
        for one in range(series):
            tally.add("events", "JobParked", f"d{one}")
        tally._due = 0.0  # noqa: SLF001 - at once, not within a second
        resilience.pulse.refresh()

    pulse(BATCH_MAX)
    value = server_us(server, lambda: pulse(BATCH_MAX), TIMES)
    without = round(server_us(server, lambda: pulse(0), TIMES), 1)
    sides = {"dependencies": PULSED, "series": BATCH_MAX, "us_without": without}
    name = "scrape_pulse_with_a_full_batch"
    yield Figure(name=name, value=value, unit="us", bound=PULSE_US, sides=sides)


def _scrape(server: ValkeyProcess, ledger: str) -> Figure:
    resilience, listener = _adopted(server, ledger, SCRAPED)
    tally: Any = listener._tally()  # noqa: SLF001 - as above
    for name in resilience.dependencies:
        for kind in ("open", "full", "timeout", "error"):
            for level in ("STALE", "REDUCED", "FAILED"):
                tally.add("degraded_answers", name, level, kind)
        for second in range(20):
            tally.observe("queue_wait_seconds", name, second / 2)
        for level in ("FULL", "STALE"):
            tally.add("answers", "celery.ping", name, level)
    tally.flush()
    registry = CollectorRegistry()
    scrape = expose(resilience, registry)
    scrape.ready.wait(30)
    show: Any = generate_latest
    value = median_us(lambda: show(registry), repeats=TIMES, calls=1)
    lines = len(show(registry).splitlines())
    return Figure(
        name=f"scrape_of_{SCRAPED}_dependencies",
        value=value,
        unit="us",
        bound=SCRAPE_US,
        sides={"lines": lines},
    )
