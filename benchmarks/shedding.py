"""Search at twice the load that the shop can serve, with flags and without.

The whole shop runs. Ranking and spelling take 0.3 s each, for two workers; what the shop can serve
in full is measured first. Then twice that is asked, at moments that wait for nobody: once while the
controller may shed, once while an order keeps both features on. The chart goes to
`benchmark-shedding.png`.
"""

import asyncio
import tempfile
from collections.abc import Iterator
from contextlib import chdir
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Final, Literal

import httpx
from rich.console import Console

from benchmarks.chart import new_chart
from benchmarks.figure import Figure
from demo.layout import Layout
from demo.runner import RunningShop, running_shop
from demo.script import LOADED
from demo.traffic import BUDGETS, FAILED_LEVEL, GIVE_UP_SECONDS, Sample, Traffic, percentile
from jobs.dependencies import DEPENDENCIES
from jobs.features import AI_RANKING, FEATURES, SPELL_CHECK
from resilience.flags import Features, Flags
from resilience.pulse import Pulse
from resilience.store import Store
from resilience.store.flags import FlagStore
from resilience.store.fleet import StoreFleet
from resilience.tasks.shared import NAMESPACE

ENDPOINT = "search"
CAPACITY_SECONDS = 10.0
CLIENTS = 2
"""As many as keep both workers busy all the time, and wait for each other less than 0.75 s."""
LOAD = 2.0
GOODPUT_LOST = 0.1
CHART = Path("benchmark-shedding.png")
SIDES: Final[dict[str, Literal["on", "auto"]]] = {"with flags": "auto", "without": "on"}


def run(*, quick: bool) -> Iterator[Figure]:
    """Measure; *quick* asks for ten seconds a side."""
    seconds = 10.0 if quick else 30.0
    chart = CHART.absolute()
    with tempfile.TemporaryDirectory(prefix="benchmark-") as directory, chdir(directory):
        console = Console(quiet=True)
        with running_shop(partial(Layout.anywhere), console) as shop:
            shop.await_ready(lambda *_: None)
            capacity, sides = asyncio.run(_measure(shop, seconds))
    _draw(sides, capacity, chart)
    budget = BUDGETS[ENDPOINT]
    for name, samples in sides.items():
        good = [one for one in samples if _is_good(one)]
        goodput, p99 = len(good) / seconds, percentile(samples, 0.99)
        ours = SIDES[name] == "auto"
        key = name.replace(" ", "_")
        seen = {
            "capacity_per_second": round(capacity, 2),
            "goodput_per_second": round(goodput, 2),
            "in_full": sum(one.level == 0 for one in samples),
            "asked": len(samples),
            "p50_ms": round(1000 * percentile(samples, 0.5)),
            "p99_ms": round(1000 * p99),
        }
        lost = max(0.0, 1 - goodput / capacity)
        bound = GOODPUT_LOST if ours else None
        yield Figure(
            name=f"shedding_goodput_lost_{key}", value=lost, unit="share", bound=bound, sides=seen
        )
        yield Figure(
            name=f"shedding_p99_{key}",
            value=p99 / budget,
            unit="budgets",
            bound=1.0 if ours else None,
        )


async def _measure(shop: RunningShop, seconds: float) -> tuple[float, dict[str, list[Sample]]]:
    flags, timeout = _flags(shop), httpx.Timeout(GIVE_UP_SECONDS)
    async with (
        httpx.AsyncClient(timeout=timeout) as control,
        httpx.AsyncClient(base_url=shop.layout.url("front"), timeout=timeout) as front,
    ):
        answer = await control.put(f"{shop.layout.url('search')}/fault", json=LOADED)
        answer.raise_for_status()
        _order(flags, "on")
        capacity = await _capacity(front)
        sides = {}
        for name, order in SIDES.items():
            _order(flags, order)
            rate, samples = max(1, round(LOAD * capacity)), list[Sample]()
            stop = asyncio.Event()
            asyncio.get_running_loop().call_later(seconds, stop.set)
            await Traffic(front, {ENDPOINT: rate}, samples.append).run(stop)
            sides[name] = samples
    return capacity, sides


async def _capacity(front: httpx.AsyncClient) -> float:
    """Return how many searches a second are answered in full while the workers are never idle."""
    until = perf_counter() + CAPACITY_SECONDS
    full = 0

    async def ask() -> None:
        nonlocal full
        while perf_counter() < until:
            answer = await front.get("/search", params={"q": "oak chair"})
            full += answer.is_success and not answer.json()["_meta"]["partial"]

    async with asyncio.TaskGroup() as group:
        for _ in range(CLIENTS):
            group.create_task(ask())
    return full / CAPACITY_SECONDS


def _flags(shop: RunningShop) -> Flags:
    url = f"redis://127.0.0.1:{shop.layout.ports['valkey']}/0"
    store = Store(url, namespace=NAMESPACE, timeout_seconds=1.0)
    features = Features(FEATURES, [one.name for one in DEPENDENCIES])
    return Flags(features, Pulse(StoreFleet(store)), FlagStore(store))


def _order(flags: Flags, order: Literal["on", "auto"]) -> None:
    for name in (AI_RANKING, SPELL_CHECK):
        flags.order(name, order, seconds=600.0, actor="benchmark", reason="one side of it")


def _is_good(sample: Sample) -> bool:
    return (
        sample.status > 0
        and not sample.error
        and sample.level < FAILED_LEVEL
        and sample.seconds <= BUDGETS[ENDPOINT]
    )


def _draw(sides: dict[str, list[Sample]], capacity: float, path: Path) -> None:
    chart = new_chart()
    if chart is None:
        return
    axes = chart.subplots()
    for name, samples in sides.items():
        first = min(one.sent for one in samples)
        axes.scatter(
            [one.sent - first for one in samples],
            [1000 * one.seconds for one in samples],
            s=8,
            alpha=0.6,
            label=name,
        )
    axes.axhline(1000 * BUDGETS[ENDPOINT], color="0.6", label="budget")
    axes.set_yscale("log")
    axes.set_xlabel("seconds")
    axes.set_ylabel("ms from due to answered")
    axes.set_title(f"Searches at twice the {capacity:.1f} a second that can be served in full")
    chart.legend(loc="outside lower center", ncols=3)
    chart.savefig(path)
