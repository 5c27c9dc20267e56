"""What it costs to ask whether a feature is on: plainly, by decorator, in a task, by OpenFeature.

Ratios are medians over pairs of runs, absolute times medians of many short runs. A pulse brings
the state of the flags with that of the breakers; pulses are counted apart from what evaluations
ask, which is nothing.
"""

import asyncio
import statistics
from collections.abc import Callable, Iterator
from functools import partial
from itertools import repeat
from typing import Any

from celery import Celery
from openfeature import api
from openfeature.client import OpenFeatureClient
from openfeature.provider.in_memory_provider import InMemoryFlag, InMemoryProvider

from benchmarks.breaker_fleet import round_trips, running_server, times
from benchmarks.breaker_peers import AsyncCall, noop, noop_async
from benchmarks.figure import Figure, in_turns, median_us, paired_ratio
from resilience import Dependency, Feature, Level, Resilience, Settings, degradable
from resilience.flags.openfeature import ResilienceProvider

ENABLED_US = 0.5
DEGRADABLE_US = 1.5
OPENFEATURE_RATIO = 1.2

CALLS_PER_RUN = 500
ON, SHED = "search.ranking", "search.spelling"


def run(*, quick: bool) -> Iterator[Figure]:
    """Measure; *quick* takes fewer rounds."""
    rounds, repeats = (100, 4000) if quick else (500, 10_000)
    with running_server() as server:
        app: Celery = Celery("benchmark", broker=server.url)
        resilience = Resilience(
            app,
            dependencies=[Dependency("search", timeout=None)],
            features=[Feature(name, level=Level.REDUCED) for name in (ON, SHED)],
            settings=Settings(store_url=server.url, namespace="benchmark"),
            listeners=(),
        )
        resilience.flags.order(SHED, "off", seconds=600, actor="benchmark", reason="to be shed")
        yield from _evaluated(resilience, repeats)
        ask = partial(resilience.flags.enabled, ON)
        yield from round_trips("flags_enabled", ask, resilience.pulse, server.client())
        yield from _decorated(repeats)
        yield from _in_a_task(resilience, rounds)
        yield from _by_openfeature(resilience, rounds)
        app.close()


def _evaluated(resilience: Resilience, repeats: int) -> Iterator[Figure]:
    enabled = resilience.flags.enabled
    if not enabled(ON) or enabled(SHED):
        msg = "the order has not been heard of"
        raise RuntimeError(msg)
    for name, feature in (("flags_enabled", ON), ("flags_enabled_shed", SHED)):
        took = median_us(partial(enabled, feature), repeats=repeats)
        yield Figure(name=name, value=took, unit="us", bound=ENABLED_US)


def _decorated(repeats: int) -> Iterator[Figure]:
    guarded = degradable(ON, otherwise=noop)(noop)
    bare = median_us(noop, repeats=repeats)
    took = median_us(guarded, repeats=repeats)
    sides = {"bare": f"{bare:.3f} us"}
    yield Figure(name="flags_degradable", value=took, unit="us", bound=DEGRADABLE_US, sides=sides)

    def awaited(function: AsyncCall, runner: asyncio.Runner) -> float:
        async def loop() -> None:
            for _ in repeat(None, 10 * CALLS_PER_RUN):
                await function()

        runs = in_turns(repeats // 100, run=lambda: runner.run(loop()))["run"]
        return statistics.median(runs) / (10 * CALLS_PER_RUN) * 1e6

    with asyncio.Runner() as runner:
        bare = awaited(noop_async, runner)
        took = awaited(degradable(ON, otherwise=noop_async)(noop_async), runner)
    sides = {"bare": f"{bare:.3f} us"}
    yield Figure(name="flags_degradable_async", value=took, unit="us", bound=None, sides=sides)


def _in_a_task(resilience: Resilience, rounds: int) -> Iterator[Figure]:
    without = resilience.pipeline("search")
    with_feature = resilience.pipeline("search", feature=ON)
    sides = {
        "with_feature": times(CALLS_PER_RUN, partial(with_feature.call, noop)),
        "without": times(CALLS_PER_RUN, partial(without.call, noop)),
    }
    seconds = in_turns(rounds, **sides)
    yield _ratio("flags_pipeline", "with_feature", "without", seconds, bound=None)


def _by_openfeature(resilience: Resilience, rounds: int) -> Iterator[Figure]:
    theirs = InMemoryProvider({ON: InMemoryFlag("on", {"on": True, "off": False})})
    providers = {"ours": ResilienceProvider(resilience.flags), "in_memory": theirs}
    for name, provider in providers.items():
        api.set_provider_and_wait(provider, name)
    clients = {name: api.get_client(name) for name in providers}
    asked: Any = {"flag_key": ON, "default_value": False}
    with asyncio.Runner() as runner:

        def awaited(client: OpenFeatureClient) -> Callable[[], None]:
            async def loop() -> None:
                for _ in repeat(None, CALLS_PER_RUN):
                    await client.get_boolean_value_async(**asked)

            return lambda: runner.run(loop())

        plain = {
            name: times(CALLS_PER_RUN, partial(client.get_boolean_value, **asked))
            for name, client in clients.items()
        }
        seconds = in_turns(rounds, **plain)
        yield _ratio("flags_openfeature", "ours", "in_memory", seconds, bound=OPENFEATURE_RATIO)
        seconds = in_turns(rounds, **{name: awaited(one) for name, one in clients.items()})
        yield _ratio("flags_openfeature_async", "ours", "in_memory", seconds, bound=None)
    api.shutdown()


def _ratio(
    name: str, ours: str, theirs: str, seconds: dict[str, list[float]], *, bound: float | None
) -> Figure:
    def us(side: str) -> str:
        return f"{statistics.median(seconds[side]) / CALLS_PER_RUN * 1e6:.3f} us"

    return Figure(
        name=name,
        value=paired_ratio(seconds[ours], seconds[theirs]),
        unit="ratio",
        bound=bound,
        sides={ours: us(ours), theirs: us(theirs)},
    )
