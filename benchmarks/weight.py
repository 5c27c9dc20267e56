"""What the package costs: commands of Celery, processes that import it, workers that are idle.

The other side is an environment with the same packages except this one, or a worker of an app that
does not use it.
"""

import tempfile
import threading
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path
from statistics import median
from time import perf_counter

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from benchmarks.breaker_fleet import exchanges
from benchmarks.client import DEPENDENCY, STOCK
from benchmarks.figure import Figure
from benchmarks.footprint import Cost, costs, packages
from benchmarks.sides import Side
from resilience import Dependency
from resilience.testing.valkey import ValkeyProcess
from resilience.worker import probe

VERSION_RATIO = 1.2
IMPORT_RATIO = 1.5
IMPORT_MB = 8.0
PROBE_RATIO = 0.25
"""Of the processor time of `from celery import Celery, Task, shared_task`."""
CORE_PACKAGES = 14
PSS_RATIOS = {"dependency": 1.15, "fire": 1.5}
"""Memory of a worker without a ledger, and with one, over that of a plain worker."""
IDLE_COMMANDS = 10.0
IDLE_CPU_RATIO = 1.8
SETTLE_SECONDS = 2.0
JOBS = 100
PYPROJECT = Path(__file__).parents[1] / "pyproject.toml"

VERSION = """
import sys
from celery.__main__ import main
sys.argv = ["celery", "--version"]
try: main()
except SystemExit: pass
"""
WITH = """
if "resilience.cli" not in sys.modules: sys.exit("the command line does not know this package")
"""
APP = """
from celery import Celery, Task
app = Celery(broker="redis://")
@app.task({options})
def noop(): pass
app.finalize(), app.amqp.queues, app.connection_for_write().transport
"""
ADOPTED = "from resilience import Dependency, Resilience, ResilientTask" + APP.replace(
    "@app", "Resilience(app, dependencies=[Dependency('noop')])\n@app"
).format(options="base=ResilientTask, dependency='noop'")
PROBE = """
import runpy, sys
sys.argv = ["resilience-health", "nobody"]
try: runpy.run_path({path!r}, run_name="__main__")
except SystemExit: pass
"""


def run(*, quick: bool) -> Iterator[Figure]:
    """Measure; *quick* takes fewer rounds, and watches idle workers for less time."""
    yield core_packages()
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="benchmark-")))
        yield from _code(home, 3 if quick else 15)
        server = ValkeyProcess(home / "valkey")
        server.start()
        stack.callback(server.kill)
        yield from _workers(server, home, *((1, 4.0) if quick else (2, 15.0)))


def core_packages() -> Figure:
    """Count the packages that `pip install` adds to those of Celery with Redis."""
    declared = tomllib.loads(PYPROJECT.read_text())["project"]["dependencies"]
    added = closure(declared) - closure(["celery[redis]"])
    return Figure(
        name="core_packages",
        value=len(added),
        unit="count",
        bound=CORE_PACKAGES,
        sides={"packages": sorted(added)},
    )


def closure(requirements: Sequence[str]) -> set[str]:
    """Return the packages that *requirements* bring on this machine, directly or not."""
    seen: set[tuple[str, str]] = set()
    left = [Requirement(text) for text in requirements]
    while left:
        requirement = left.pop()
        for extra in requirement.extras or {""}:
            key = (canonicalize_name(requirement.name), extra)
            if key in seen:
                continue
            seen.add(key)
            try:
                further = map(Requirement, requires(requirement.name) or ())
            except PackageNotFoundError:
                continue
            left += [
                each
                for each in further
                if not each.marker or each.marker.evaluate({"extra": extra})
            ]
    return {name for name, _ in seen}


def _code(home: Path, rounds: int) -> Iterator[Figure]:
    with_us, without_us = packages(home / "with", ours=True), packages(home / "without", ours=False)
    measured = costs(
        {
            "bare": (without_us, ""),
            "version": (with_us, VERSION + WITH),
            "version_without": (without_us, VERSION),
            "celery": (with_us, "import celery"),
            "resilience": (with_us, "import resilience"),
            "celery_names": (with_us, "from celery import Celery, Task, shared_task"),
            "names": (with_us, "from resilience import Dependency, Resilience, ResilientTask"),
            "celery_app": (with_us, APP.format(options="")),
            "app": (with_us, ADOPTED),
            "probe": (with_us, PROBE.format(path=probe.__file__)),
        },
        rounds=rounds,
    )
    bare = measured["bare"]
    version, without = measured["version"], measured["version_without"]
    sides = {
        "with_ms": round(version.cpu_ms),
        "without_ms": round(without.cpu_ms),
        "more_mb": round(version.high_mb - without.high_mb, 1),
    }
    yield Figure(
        name="celery_version_cpu",
        value=version.cpu_ms / without.cpu_ms,
        unit="ratio",
        bound=VERSION_RATIO,
        sides=sides,
    )
    pairs = {"resilience": "celery", "names": "celery_names", "app": "celery_app"}
    for name, theirs in pairs.items():
        yield from _imported(name, measured[name], measured[theirs], bare)
    yield Figure(
        name="probe_cpu",
        value=_net(measured["probe"], bare) / _net(measured["celery_names"], bare),
        unit="ratio",
        bound=PROBE_RATIO,
        sides={
            "probe_ms": round(measured["probe"].cpu_ms, 1),
            "interpreter_ms": round(bare.cpu_ms, 1),
        },
    )


def _net(cost: Cost, bare: Cost) -> float:
    """Return the processor time without that of a bare interpreter, in milliseconds."""
    return cost.cpu_ms - bare.cpu_ms


def _imported(name: str, ours: Cost, theirs: Cost, bare: Cost) -> Iterator[Figure]:
    """Compare an import of ours with its counterpart; that of a whole app is for information."""
    yield Figure(
        name=f"import_{name}_cpu",
        value=_net(ours, bare) / _net(theirs, bare),
        unit="ratio",
        bound=IMPORT_RATIO if name != "app" else None,
        sides={
            "ours_ms": round(_net(ours, bare)),
            "celery_ms": round(_net(theirs, bare)),
        },
    )
    more = ours.high_mb - theirs.high_mb
    most = IMPORT_MB if name != "app" else None
    yield Figure(name=f"import_{name}_memory", value=more, unit="MB", bound=most)


def _workers(
    server: ValkeyProcess, home: Path, rounds: int, idle_seconds: float
) -> Iterator[Figure]:
    pss: dict[str, list[float]] = {}
    idle: dict[str, list[dict[str, float]]] = {}
    for turn in range(rounds):
        for style in ("plain", *PSS_RATIOS):
            server.flush()
            side = _side(style, server.url, home / f"{style}-{turn}")
            began = perf_counter()
            with side.running():
                ready = perf_counter() - began
                started = sum(side.cpu_seconds())
                side.stop()
                side.ask("publish", JOBS)
                side.consume(JOBS)
                pss.setdefault(style, []).append(side.pss_mb())
                side.go_on()
                seen = _idle(side, server, idle_seconds)
                seen |= {"ready": ready, "started": started}
                idle.setdefault(style, []).append(seen)
    for style, bound in PSS_RATIOS.items():
        name = {"dependency": "worker", "fire": "worker_with_ledger"}[style]
        ours, plain = median(pss[style]), median(pss["plain"])
        yield Figure(
            name=f"{name}_pss",
            value=ours / plain,
            unit="ratio",
            bound=bound,
            sides={"mb": round(ours, 1), "plain_mb": round(plain, 1)},
        )
        yield from _idle_figures(name, idle[style], idle["plain"])


def _side(style: str, url: str, home: Path) -> Side:
    if style == "plain":
        return Side("benchmarks.stock", queues=[STOCK], env={"BENCHMARK_BROKER": url}, home=home)
    env = {
        "BENCHMARK_BROKER": url,
        "BENCHMARK_STORE": url,
        "BENCHMARK_LEDGER": f"sqlite:///{home / 'ledger.sqlite3'}",
        "BENCHMARK_NAMESPACE": home.name,
        "BENCHMARK_STYLE": style,
    }
    queues = Dependency(DEPENDENCY).queues
    return Side("benchmarks.throughput_app", queues=queues, env=env, home=home)


def _idle(side: Side, server: ValkeyProcess, seconds: float) -> dict[str, float]:
    """Return what an idle worker uses per second."""
    client, pause = server.client(), threading.Event()
    pause.wait(SETTLE_SECONDS)
    cpu, asked, commands = _cpu(side), exchanges(client), _commands(client)
    began = perf_counter()
    pause.wait(seconds)
    took = perf_counter() - began
    return {
        "cpu": (_cpu(side) - cpu) / took,
        # Less the INFO commands of this function itself.
        "commands": (_commands(client) - commands - 2) / took,
        "exchanges": (exchanges(client) - asked - 3) / took,
    }


def _cpu(side: Side) -> float:
    """Return processor seconds to the nanosecond: an idle worker uses few ticks of `times`."""
    stats = (path for pid in side.pids() for path in Path(f"/proc/{pid}/task").glob("*/schedstat"))
    return sum(int(path.read_text().split()[0]) for path in stats) / 1e9


def _commands(client: object) -> int:
    stats = client.info("commandstats")  # type: ignore[attr-defined] # redis-py's types are vague
    return sum(command["calls"] for command in stats.values())


def _idle_figures(
    name: str, ours: Sequence[dict[str, float]], plain: Sequence[dict[str, float]]
) -> Iterator[Figure]:
    def middle(side: Sequence[dict[str, float]], what: str) -> float:
        return median(turn[what] for turn in side)

    yield Figure(
        name=f"{name}_idle_commands",
        value=middle(ours, "commands"),
        unit="1/s",
        bound=IDLE_COMMANDS,
        sides={
            "plain": round(middle(plain, "commands"), 2),
            "exchanges": round(middle(ours, "exchanges"), 2),
            "plain_exchanges": round(middle(plain, "exchanges"), 2),
        },
    )
    for what, bound in (("cpu", IDLE_CPU_RATIO), ("started", None), ("ready", None)):
        label = {"cpu": "idle_cpu", "started": "start_cpu", "ready": "start_to_ready"}[what]
        per = "s per s" if what == "cpu" else "s"
        yield Figure(
            name=f"{name}_{label}",
            value=middle(ours, what) / middle(plain, what),
            unit="ratio",
            bound=bound,
            sides={
                "ours": f"{middle(ours, what):.4f} {per}",
                "plain": f"{middle(plain, what):.4f} {per}",
            },
        )
