"""How costs grow: with dependencies, rows of the ledger, parts of a fan-out, and processes.

Each figure fits an exponent to measurements at several sizes. The store measures its own scripts,
so that other programs hardly disturb these figures.
"""

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from celery import Celery

from benchmarks import scale_rows
from benchmarks.figure import Figure, exponent, median_us
from resilience import BreakerPolicy, Dependency, Resilience, Settings
from resilience.breaker import Breaker
from resilience.pulse import Pulse
from resilience.store import Answers, Store
from resilience.store.fanin import FanIn, Memory, Slot
from resilience.store.fleet import StoreFleet
from resilience.tasks.serialization import dumps, loads
from resilience.testing.postgres import PostgresProcess
from resilience.testing.rabbitmq import RabbitProcess, find_program
from resilience.testing.valkey import ValkeyProcess
from resilience.worker.undertaker import Undertaker

DEPENDENCIES = (1, 10, 50, 200)
PULSE_US = 1500.0
"""Time of the server for a pulse that carries evidence of 200 dependencies."""
PULSE_EXPONENT = 1.0
"""The cost of a pulse grows no faster than the number of dependencies."""
KNOWN_EXPONENT = 0.2
"""A pulse costs hardly more with more circuits that the process knows already."""
PARTS = (10, 100, 1000, 10_000)
FAN_IN_EXPONENT = 1.1
"""Of the reports of all parts of a fan-out together."""
REQUIRED_EXPONENT = 0.1
"""Reporting a failed required part costs the same however many parts the fan-out has."""
PROCESSES = (1, 10, 50, 200)
PROCESSES_EXPONENT = 0.5
"""Of one pulse of one process. All processes see failures, which a breaker counts by process."""
COLLECTED = (1, 10, 50)
COLLECTED_EXPONENT = 0.2
"""A worker collects from its own queues only, however many the app has."""
TIMES = 20


def run(*, quick: bool) -> Iterator[Figure]:
    """Measure; *quick* takes fewer rows and parts."""
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="benchmark-")))
        home.chmod(0o755)  # the user who runs PostgreSQL must reach a directory in it
        server = ValkeyProcess(home / "valkey")
        server.start()
        stack.callback(server.kill)
        yield from _dependencies(server)
        yield from _parts(server, PARTS[:3] if quick else PARTS)
        yield _processes(server)
        (home / "postgres").mkdir()
        postgres = PostgresProcess(home / "postgres")
        postgres.start()
        stack.callback(postgres.stop)
        urls = {
            "sqlite": (f"sqlite:///{home / 'rows'}", f"sqlite:///{home / 'letters'}"),
            "postgresql": (postgres.url, postgres.new_database()),
        }
        yield from scale_rows.run(urls, server.url, quick=quick)
        if not quick and find_program() is not None:
            rabbit = RabbitProcess(home / "rabbit")
            rabbit.start()
            stack.callback(rabbit.kill)
            yield _collector(rabbit, server.url)


def server_us(server: ValkeyProcess, run_: Callable[[], object], times: int) -> float:
    """Return the microseconds that the server spends in scripts per run: the median of *times*."""
    client: Any = server.client()
    spent = [_spent_us(client)]
    for _ in range(times):
        run_()
        spent.append(_spent_us(client))
    return median(after - before for before, after in pairwise(spent))


def _spent_us(client: Any) -> float:  # noqa: ANN401 - redis-py's types are vague
    stats = client.info("commandstats")
    return float(
        sum(stats.get(f"cmdstat_{name}", {"usec": 0})["usec"] for name in ("eval", "evalsha"))
    )


def _growth(name: str, points: Mapping[int, float], most: float) -> Figure:
    return Figure(
        name=f"{name}_exponent",
        value=exponent(points),
        unit="power",
        bound=most,
        sides={"us": {size: round(us, 1) for size, us in points.items()}},
    )


def _dependencies(server: ValkeyProcess) -> Iterator[Figure]:
    at_server: dict[int, float] = {}
    known: dict[int, float] = {}
    for number in DEPENDENCIES:
        server.flush()
        app = Celery("scale", broker=server.url, set_as_current=False)
        resilience = Resilience(
            app,
            dependencies=[Dependency(f"d{one}", timeout=None) for one in range(number)],
            settings=Settings(store_url=server.url),
            listeners=[],
        )
        breakers: list[Any] = [resilience.breaker(f"d{one}") for one in range(number)]
        pulse = resilience.pulse

        def call_all(breakers: list[Any] = breakers, pulse: Pulse = pulse) -> None:
            for breaker in breakers:
                breaker.call(int)
            pulse.refresh()

        call_all()
        at_server[number] = server_us(server, call_all, TIMES)
        for breaker in breakers:  # from now on the store keeps a circuit of each
            breaker.force_open(seconds=1.0, actor="benchmark", reason="to be known")
            breaker.reset(actor="benchmark", reason="to be known")
        pulse.refresh()
        known[number] = median_us(pulse.refresh, repeats=10 * TIMES, calls=1)
        app.close()
    yield Figure(
        name="scale_pulse_of_200_dependencies",
        value=at_server[DEPENDENCIES[-1]],
        unit="us",
        bound=PULSE_US,
        sides={"us_at_server": {one: round(us, 1) for one, us in at_server.items()}},
    )
    yield _growth("scale_pulse_by_dependencies", at_server, PULSE_EXPONENT)
    yield _growth("scale_pulse_by_known_circuits", known, KNOWN_EXPONENT)


def _collector(rabbit: RabbitProcess, store_url: str) -> Figure:
    """Collect dead letters in one dependency's worker, in apps with ever more dependencies."""
    points: dict[int, float] = {}
    for number in COLLECTED:
        app = Celery("scale", broker=rabbit.new_url(), set_as_current=False)
        resilience = Resilience(
            app,
            dependencies=[Dependency(f"d{one}") for one in range(number)],
            settings=Settings(store_url=store_url, namespace=f"collector{number}"),
            listeners=[],
        )
        app.amqp.queues.select(list(resilience.dependencies["d0"].queues))
        look = partial(Undertaker(None).look, resilience)
        look()
        points[number] = median_us(look, repeats=TIMES, calls=1)
        app.close()
    return _growth("scale_collector_by_dependencies", points, COLLECTED_EXPONENT)


def _parts(server: ValkeyProcess, sizes: tuple[int, ...]) -> Iterator[Figure]:
    store = Store(server.url, namespace="scale", timeout_seconds=10.0)
    fan_in = FanIn(store, Answers(store, dumps=dumps, loads=loads))
    all_reports: dict[int, float] = {}
    required: dict[int, float] = {}
    for parts in sizes:
        server.flush()
        names = [f"p{number}" for number in range(parts)]
        keys = {name: store.key("answer", name) for name in names}
        for key in keys.values():
            server.client().set(key, b"60000:1")
        all_reports[parts] = server_us(server, partial(_report_all, fan_in, names), 1)
        fans = iter([_open(fan_in, f"required{turn}", names, keys) for turn in range(TIMES)])
        required[parts] = server_us(server, lambda: _fail(fan_in, next(fans)), TIMES)  # noqa: B023 - called at once
    yield _growth("scale_reports_of_a_fanout", all_reports, FAN_IN_EXPONENT)
    yield _growth("scale_failed_required_part", required, REQUIRED_EXPONENT)


def _open(fan_in: FanIn, fan: str, names: list[str], keys: Mapping[str, str]) -> str:
    spec = [(name, name == names[0]) for name in names]
    memories = {name: Memory(key, 60.0) for name, key in keys.items()}
    fan_in.open(fan, spec, budget=60.0, memories=memories)
    return fan


def _report_all(fan_in: FanIn, names: list[str]) -> None:
    _open(fan_in, "all", names, {})
    for name in names:
        fan_in.report(Slot(fan="all", part=name), "+1", full=True)


def _fail(fan_in: FanIn, fan: str) -> None:
    slot = Slot(fan=fan, part="p0")
    why = json.dumps({"type": "ConnectionError", "text": "down"})
    if fan_in.report(slot, f"-{why}", full=False) != "in":
        msg = "a stale answer did not stand in for a required part"
        raise RuntimeError(msg)


def _processes(server: ValkeyProcess) -> Figure:
    """Let many pulses carry failures; each has a name of its own, like that of another process."""
    policy = BreakerPolicy(minimum_calls=10**6, consecutive_failures=None)
    points: dict[int, float] = {}
    for number in PROCESSES:
        server.flush()
        pulses = [
            Pulse(StoreFleet(Store(server.url, namespace=f"scale{number}"))) for _ in range(number)
        ]
        breakers = [Breaker("shared", pulse, policy, listeners=()) for pulse in pulses]

        def report(pulses: list[Pulse] = pulses, breakers: list[Breaker] = breakers) -> None:
            for breaker, pulse in zip(breakers, pulses, strict=True):
                breaker.record_failure(ConnectionError("down"))
                pulse.refresh()

        report()
        points[number] = server_us(server, report, max(1, TIMES // number)) / number
    return _growth("scale_pulse_by_processes", points, PROCESSES_EXPONENT)
