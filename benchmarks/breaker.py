"""What a breaker that the fleet shares costs a call, beside breakers that share nothing.

Ratios are medians over pairs of runs. Absolute times are the best of many short runs, as the
machine may be busy with other things.
"""

import asyncio
import statistics
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from itertools import repeat

import redis

from benchmarks.breaker_fleet import best_us, join, round_trips, running_server, times
from benchmarks.breaker_peers import AsyncCall, guarded, guarded_async, noop, noop_async
from benchmarks.figure import Figure, in_turns, paired_ratio
from resilience.breaker import Breaker
from resilience.dependency import Dependency
from resilience.errors import CircuitOpenError
from resilience.fallback import static
from resilience.pipeline import Pipeline
from resilience.store import Answers, Store
from resilience.tasks.serialization import dumps, loads

RATIO_BOUND = 0.65
VALUE_US = 2.0
EXCEPTION_US = 4.0
PIPELINE_US = 4.0
PIPELINE_WITH_TIMER_US = 8.0

CALLS_PER_RUN = 1000


def run(*, quick: bool) -> Iterator[Figure]:
    """Measure; *quick* takes fewer rounds."""
    rounds, repeats = (100, 4000) if quick else (400, 10_000)
    with running_server() as server:
        breaker, pulse = join(server.url, "closed")
        yield from _closed(breaker, rounds)
        yield from _closed_async(breaker, rounds)
        yield from _pipeline(breaker, server.url, repeats)
        yield from round_trips("breaker_closed", breaker(noop), pulse, server.client())
        yield from _refused(server.url, server.client(), repeats)


def _closed(breaker: Breaker, rounds: int) -> Iterator[Figure]:
    def block() -> None:
        with breaker:
            pass

    sides = {
        "bare": noop,
        "decorated": breaker(noop),
        "called": lambda: breaker.call(noop),
        "block": block,
        **guarded(),
    }
    seconds = in_turns(rounds, **{name: times(CALLS_PER_RUN, run) for name, run in sides.items()})
    yield from _ratios("breaker_sync", "decorated", seconds, CALLS_PER_RUN)
    for form in ("called", "block"):
        yield _ratio(f"breaker_sync_{form}", form, "circuitbreaker", seconds, CALLS_PER_RUN)


def _closed_async(breaker: Breaker, rounds: int) -> Iterator[Figure]:
    calls = 3 * CALLS_PER_RUN  # to make little of what it costs to enter the event loop
    sides = {"bare": noop_async, "decorated": breaker(noop_async), **guarded_async()}
    with asyncio.Runner() as runner:

        def awaited(function: AsyncCall) -> Callable[[], None]:
            async def loop() -> None:
                for _ in repeat(None, calls):
                    await function()

            return lambda: runner.run(loop())

        seconds = in_turns(rounds // 2, **{name: awaited(run) for name, run in sides.items()})
    yield from _ratios("breaker_async", "decorated", seconds, calls)


def _ratios(name: str, ours: str, seconds: dict[str, list[float]], calls: int) -> Iterator[Figure]:
    for peer in ("circuitbreaker", "purgatory", "pybreaker", "interlock_cb"):
        if peer in seconds:
            bound = RATIO_BOUND if peer == "circuitbreaker" else None
            yield _ratio(name, ours, peer, seconds, calls, bound=bound)


def _ratio(
    name: str,
    ours: str,
    peer: str,
    seconds: dict[str, list[float]],
    calls: int,
    *,
    bound: float | None = None,
) -> Figure:
    def ns(side: str) -> int:
        return round(statistics.median(seconds[side]) / calls * 1e9)

    return Figure(
        name=f"{name}_vs_{peer}",
        value=paired_ratio(seconds[ours], seconds[peer]),
        unit="ratio",
        bound=bound,
        sides={ours: f"{ns(ours)} ns", peer: f"{ns(peer)} ns", "bare": f"{ns('bare')} ns"},
    )


def _pipeline(breaker: Breaker, url: str, repeats: int) -> Iterator[Figure]:
    answers = Answers(Store(url, namespace="benchmark"), dumps=dumps, loads=loads)
    dependency = Dependency(breaker.name)
    for name, fallbacks in (("pipeline", []), ("pipeline_with_fallback", [static(1)])):
        pipeline = Pipeline(name, dependency, answers, breaker=breaker, fallbacks=fallbacks)
        call = partial(pipeline.call, noop)
        # Only a main thread can be interrupted, so only there a timer is armed.
        with ThreadPoolExecutor(1) as pool:
            beside = pool.submit(best_us, call, repeats=repeats).result()
        yield _best(name, beside, PIPELINE_US)
        armed = best_us(call, repeats=repeats)
        yield _best(f"{name}_timer_armed", armed, PIPELINE_WITH_TIMER_US)


def _refused(url: str, client: redis.Redis, repeats: int) -> Iterator[Figure]:
    breaker, pulse = join(url, "open")
    breaker.force_open(seconds=600.0, actor="benchmark", reason="to be refused")
    guarded = breaker(noop)

    def raising() -> None:
        with suppress(CircuitOpenError):
            guarded()

    if breaker.refusal() is None:
        msg = "the circuit that was forced open refuses nothing"
        raise RuntimeError(msg)
    yield _best("breaker_refused_by_value", best_us(breaker.refusal, repeats=repeats), VALUE_US)
    yield _best("breaker_refused_by_exception", best_us(raising, repeats=repeats), EXCEPTION_US)
    yield from round_trips("breaker_open", breaker.refusal, pulse, client)


def _best(name: str, microseconds: float, bound: float) -> Figure:
    sides = {"measured": "the best of many short runs"}
    return Figure(name=name, value=microseconds, unit="us", bound=bound, sides=sides)
